"""Atari games of the Arcade Learning Environment, which are restored exactly, and their usual preprocessing.

`AtariGame` is ale-py's own environment, whose state is its pickle: how the game started, and the actions since, which
are played again. (ALE's clones of a state lack parts of the emulator, so that some games, such as Q*bert, go on
differently.)
"""

from __future__ import annotations

import functools
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
from ale_py import ALEInterface, ALEState, LoggerMode
from ale_py.env import AtariEnv
from annotated_types import Ge, Lt

from lab.common.conf import install_command
from lab.common.imports import import_named
from lab.common.validation import Count, Natural
from lab.env.monitor import Monitor
from lab.env.validation import OUTER, Validated
from lab.errors import LabError

NOOP, FIRE, AFTER_FIRE = 0, 1, 2  # indexes of actions

ALEInterface.setLoggerMode(LoggerMode.Error)  # before the first game, which would print a banner


class AtariGame(AtariEnv):
    """ale-py's environment, with pickles that go on exactly, and with observations as `AtariWrapper` needs them.

    Args of its own:
        screens: whether observations are the last two screens of a step [2, height, width] in ALE's codes of colors.
    """

    def __init__(self, game: str, screens: bool = False, **arguments: Any) -> None:
        """Load a game; the other arguments are those of ale-py's environment."""
        super().__init__(game, **(arguments | ({"obs_type": "ram"} if screens else {})))
        self._constructor = {"game": game, "screens": screens, **arguments}
        self._origin: Any = None  # the seed of the episode or, without one, ALE's state before its reset
        self._played = bytearray()  # indexes of the actions since then, a frame each
        self.frame_skip: Any = self._frameskip  # frames that an action is repeated for, or bounds to draw them from
        self.screens = np.zeros((2, *self.ale.getScreenDims()), np.uint8)
        self._gives_screens = screens
        self.palette = share_palette(game)
        if screens:
            self.observation_space = gym.spaces.Box(0, 255, self.screens.shape, np.uint8)

    @property
    def max_episode_steps(self) -> int | None:
        """Steps after which ALE cuts a game; None if that is unknown."""
        frames = self._constructor.get("max_num_frames_per_episode")
        return frames // self.frame_skip if frames and isinstance(self.frame_skip, int) else None

    def set_repeat_probability(self, probability: float) -> None:
        """Let each frame repeat the action before with a probability, from the next seeded reset on."""
        self.ale.setFloat("repeat_action_probability", probability)
        self._constructor["repeat_action_probability"] = probability

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        """Start a game."""
        self._origin = self.ale.cloneState(include_rng=True).serialize() if seed is None else seed
        self._played.clear()
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Any]:
        """Repeat an action for some frames, or until the game is over."""
        if self.continuous:
            return super().step(action)
        skip, ale = self.frame_skip, self.ale
        frames = skip if isinstance(skip, int) else int(self.np_random.integers(*skip))
        code, reward, over = self._action_set[action], 0.0, False
        for left in range(frames - 1, -1, -1):
            reward += ale.act(code)
            self._played.append(action)
            over = ale.game_over()
            if left < 2 and self._gives_screens and frames > 1:
                self._read_screen(self.screens[1 - left])
            if over:
                break
        truncated = over and ale.game_truncated()
        terminated = over and ale.game_over(with_truncation=False)
        single = frames == 1  # the two last screens are those of steps of several frames
        return self._get_obs() if single else self._observe(), reward, terminated, truncated, self._get_info()

    def _observe(self) -> Any:
        return self.screens if self._gives_screens else super()._get_obs()

    def _get_obs(self) -> Any:
        if not self._gives_screens:
            return super()._get_obs()
        screens = np.empty_like(self.screens)
        self._read_screen(screens[0])
        screens[1] = screens[0]
        return screens

    def _read_screen(self, out: np.ndarray) -> None:
        """Write the screen into `out`, and remember the colors of new codes."""
        self.ale.getScreen(out)
        new = out.tobytes().translate(None, self.palette.known)
        if new:
            self.palette.learn(new, out, self.ale.getScreenRGB())

    def __getstate__(self) -> dict[str, Any]:
        """Return what is needed to play the game again."""
        if self.continuous:
            raise LabError("a game with continuous actions cannot be saved")
        kept = ("_constructor", "_origin", "_played", "frame_skip", "screens", "_np_random", "_np_random_seed")
        return {name: getattr(self, name) for name in kept} | {"ram": self.ale.getRAM()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Play the game again up to where it was."""
        state = dict(state)
        ram, constructor = state.pop("ram"), state.pop("_constructor")
        AtariGame.__init__(self, **constructor)
        origin = state["_origin"]
        if isinstance(origin, bytes):
            self.ale.restoreState(ALEState(origin))
        elif origin is not None:
            self.seed_game(origin)
            self.load_game()
        if origin is not None:
            self.ale.reset_game()
        for action in state["_played"]:
            self.ale.act(self._action_set[action])
        if origin is not None and (self.ale.getRAM() != ram).any():
            raise LabError(f"{constructor['game']} did not come back to the state that was saved")
        self.__dict__.update(state)


class AtariWrapper(gym.Wrapper[Any, Any, Any, Any]):
    """Preprocess an Atari game as results are published: Stable-Baselines3's AtariWrapper, and its stack of frames.

    A reset plays 1 to `noop_max` no-ops and, if the game has it, FIRE and the action after it. An action is repeated
    for `frame_skip` frames. An observation has the maximum of the last two, in gray, scaled to a square, below the
    `frame_stack - 1` before it (zeros at first): uint8 [frame_stack, screen_size, screen_size].
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        noop_max: Natural = 30,
        frame_skip: Count = 4,
        screen_size: Count = 84,
        terminal_on_life_loss: bool = False,
        clip_reward: bool = True,
        action_repeat_probability: Annotated[float, Ge(0), Lt(1)] | None = None,
        frame_stack: Count = 4,
    ) -> None:
        """Wrap a game.

        Args:
            env: with an AtariGame that gives screens inside.
            noop_max: no-ops at most after a reset; 0 for none.
            frame_skip: frames for which an action is repeated.
            screen_size: width and height of an observation in pixels.
            terminal_on_life_loss: whether the loss of a life ends an episode; the game goes on after it.
            clip_reward: whether a reward is its sign.
            action_repeat_probability: with which a frame repeats the action before; None for the game's own.
            frame_stack: observations in a stack.
        """
        super().__init__(env)
        game = env
        while isinstance(game, (Monitor, Validated, *OUTER)):  # these change neither observations nor actions
            game = game.env
        if not isinstance(game, AtariGame) or game.observation_space.shape != game.screens.shape:
            raise LabError("it must be the first wrapper of an Atari game (env.id=ALE/...)")
        if action_repeat_probability is not None:
            game.set_repeat_probability(action_repeat_probability)
        self._clip, self._life_ends = clip_reward, terminal_on_life_loss
        self._noop_max, self._frame_skip, self._size = noop_max, frame_skip, (screen_size, screen_size)
        game.frame_skip = frame_skip
        self._fires = "FIRE" in game.get_action_meanings()
        self._lives, self._over = 0, True
        import_cv2()
        self.stacked_frames = frame_stack, True
        self._stack = np.zeros((frame_stack, *self._size), np.uint8)
        self.observation_space = gym.spaces.Box(0, 255, self._stack.shape, np.uint8)

    @property
    def game(self) -> AtariGame:
        """The game inside."""
        game: Any = self.env.unwrapped
        return game

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start a game, or go on with it after the loss of a life."""
        if seed is not None:
            self._over = True
        screens, info = self._start(seed, options)
        if self._fires:
            for action in (FIRE, AFTER_FIRE):
                screens, _, terminated, truncated, info = self._play(action)
                if terminated or truncated:
                    self._start(None, options)
        self._stack = np.zeros_like(self._stack)
        return self._observe(screens), info

    def _start(self, seed: int | None, options: dict[str, Any] | None) -> tuple[Any, dict[str, Any]]:
        over = self._over
        if not over:  # a no-op leaves the screen that shows the loss of a life
            screens, _, terminated, truncated, info = self.env.step(NOOP)
            over = terminated or truncated
        if over:
            screens, info = self._start_game(seed, options)
        self._over, self._lives = False, self.game.ale.lives()
        return screens, info

    def _start_game(self, seed: int | None, options: dict[str, Any] | None) -> tuple[Any, dict[str, Any]]:
        game = self.game
        game.frame_skip = 1
        screens, info = self.env.reset(seed=seed, options=options)
        for _ in range(int(game.np_random.integers(1, self._noop_max + 1)) if self._noop_max else 0):
            screens, _, terminated, truncated, info = self.env.step(NOOP)
            if terminated or truncated:
                screens, info = self.env.reset(seed=seed, options=options)
        game.frame_skip = self._frame_skip
        return screens, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take a step."""
        screens, reward, terminated, truncated, info = self._play(action)
        reward = (reward > 0.0) - (reward < 0.0) if self._clip else reward
        return self._observe(screens), float(reward), terminated, truncated, info

    def _play(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        screens, reward, terminated, truncated, info = self.env.step(action)
        self._over = terminated or truncated
        if self._life_ends:
            lives = self.game.ale.lives()
            terminated = terminated or 0 < lives < self._lives  # Q*bert has 0 for some frames before it is over
            self._lives = lives
        return screens, reward, terminated, truncated, info

    def _observe(self, screens: np.ndarray) -> np.ndarray:
        """Return the stack with the newest screens in it."""
        cv2, (before, last) = import_cv2(), screens
        pairs = np.left_shift(before, 8, dtype=np.uint16)
        pairs |= last
        gray = self.game.palette.gray.take(pairs)
        stack = np.empty_like(self._stack)
        stack[:-1] = self._stack[1:]
        cv2.resize(gray, self._size, dst=stack[-1], interpolation=cv2.INTER_AREA)
        self._stack = stack
        return stack


class Palette:
    """The colors of ALE's codes, of those that were on a screen; ALE tells them by screens alone.

    Attributes:
        known: the codes.
        gray: gray of the maximum of two colors [65,536], at 256 times the code of one plus that of the other.
    """

    def __init__(self) -> None:
        self.known, self.gray = b"", np.zeros(256 * 256, np.uint8)
        self._colors = np.zeros((256, 3), np.uint8)

    def learn(self, codes: bytes, screen: np.ndarray, picture: np.ndarray) -> None:
        """Learn the colors of codes on a screen [height, width] from its picture [height, width, 3]."""
        cv2, table = import_cv2(), self.gray.reshape(256, 256)
        self._colors[screen] = picture
        for code in set(codes):
            pairs = np.maximum(self._colors, self._colors[code])[None]
            table[code] = table[:, code] = cv2.cvtColor(pairs, cv2.COLOR_RGB2GRAY)[0]
        self.known += bytes(set(codes))


@functools.cache
def share_palette(game: str) -> Palette:
    """Return the palette of a game, which all its environments learn together."""
    return Palette()


@functools.cache
def import_cv2() -> Any:
    """Return OpenCV, which games without the wrapper do not need."""
    try:
        cv2: Any = import_named("cv2")
    except ModuleNotFoundError as error:
        raise LabError(f"AtariWrapper needs OpenCV, which is not installed: {install_command('atari')}") from error
    cv2.setNumThreads(1)  # one screen takes longer with more
    return cv2
