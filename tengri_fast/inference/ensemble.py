"""Ensembles: several models of any family and backend on one feature row, run in one call.

* ``mean``: the mean of the members' outputs, over those whose output is finite.
* ``weighted``: the same with fixed weights, which are normalised over the healthy members of each step.
* ``stacked``: a small network without state on the members' outputs, one after another (Wolpert 1992). It was fitted to
  all members, so it refuses to guess for one that is missing: its answer is NaN while a member's is.

Outputs that are to be averaged should be probabilities: give ``temperatures`` for members that yield logits, and
``softmax(z / temperature)`` of them is taken first (Guo et al. 2017).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tengri_fast.errors import ConfigurationError, InferenceFailed
from tengri_fast.inference.backends import InferenceModel
from tengri_fast.inference.network import Network

if TYPE_CHECKING:
    from tengri_fast.inference.ensemble_session import EnsembleSession
    from tengri_fast.inference.session import Model

__all__ = ["Ensemble"]

METHODS = ("mean", "weighted", "stacked")
STATELESS = {"dense", "affine", "activation", "add", "mul", "concat", "slice", "norm"}


class Ensemble:
    """Several models that read the same row, as one model.

    Parameters
    ----------
    members : mapping of str to InferenceModel, or sequence of InferenceModel
        At least one, of equal ``input_size`` and, unless stacked, of equal ``output_size``. In a sequence they are
        called "member0", "member1" ...
    method : {"mean", "weighted", "stacked"}
        How the outputs become one.
    weights : sequence of float, optional
        One per member, within 1e-100 and 1e100; for "weighted", and only then.
    stacker : Network or Model, optional
        For "stacked", and only then: reads the members' outputs one after another; layers without state.
    temperatures : sequence of float, optional
        One per member: a positive number says that its output is logits and that ``softmax(z / temperature)`` enters;
        0 takes the output as it is. Default: as they are.
    windows : mapping of str to int, optional
        Native members that answer over a window (:meth:`Model.windowed`), by name.

    Raises
    ------
    ConfigurationError
        If the members do not fit each other or the method; the text names the member and the rule.

    Examples
    --------
    >>> ensemble = Ensemble({"lstm": lstm, "tcn": tcn}, method="weighted", weights=[2, 1])  # doctest: +SKIP
    >>> session = ensemble.session()                                                         # doctest: +SKIP
    >>> session.step(row)                                                                    # doctest: +SKIP
    """

    backend = "ensemble"
    declined = None

    def __init__(
        self,
        members: Mapping[str, InferenceModel] | Sequence[InferenceModel],
        *,
        method: str = "mean",
        weights: Sequence[float] | None = None,
        stacker: Network | Model | None = None,
        temperatures: Sequence[float] | None = None,
        windows: Mapping[str, int] | None = None,
    ) -> None:
        if not isinstance(members, Mapping):
            members = {f"member{i}": member for i, member in enumerate(members)}
        self.members: dict[str, InferenceModel] = dict(members)
        self.method = method
        self.windows = dict(windows or {})
        self._check_members()
        count = len(self.members)
        if method != "weighted" and weights is not None:
            raise ConfigurationError(f'`weights` must be given for "weighted" only, `method` was {method!r}')
        if method == "weighted" and weights is None:
            raise ConfigurationError('`weights` must be given for `method` "weighted", was None')
        self.weights = _numbers("weights", [1.0] * count if weights is None else weights, count, positive=True)
        degrees = [0.0] * count if temperatures is None else temperatures
        self.temperatures = _numbers("temperatures", degrees, count, positive=False)
        first = next(iter(self.members.values()))
        self.input_size = first.input_size
        self.stacker = self._stacker(stacker)
        self.output_size = first.output_size if self.stacker is None else self.stacker.output_size
        self.sha256 = self._digest()

    def _check_members(self) -> None:
        if self.method not in METHODS:
            raise ConfigurationError(f"`method` must be one of {', '.join(METHODS)}, was {self.method!r}")
        if not self.members:
            raise ConfigurationError("`members` must hold at least one model, was empty")
        first = next(iter(self.members.values()))
        for name, member in self.members.items():
            if not isinstance(member, InferenceModel):
                raise ConfigurationError(f"member `{name}` must be a model, was {type(member).__name__}")
            for field in ("input_size", "output_size"):
                wanted, found = getattr(first, field), getattr(member, field)
                if found != wanted and (field == "input_size" or self.method != "stacked"):
                    raise ConfigurationError(
                        f"member `{name}`: `{field}` must be that of the others ({wanted}), was {found}"
                    )
        for name in self.windows:
            if name not in self.members:
                raise ConfigurationError(f"`windows` must name members ({', '.join(self.members)}), was {name!r}")
            if self.members[name].backend != "native":
                raise ConfigurationError(
                    f"`windows` must name native members, `{name}` runs on {self.members[name].backend}"
                )

    def _stacker(self, stacker: Network | Model | None) -> Model | None:
        from tengri_fast.inference.session import Model

        if (stacker is not None) != (self.method == "stacked"):
            raise ConfigurationError('`stacker` must be given for `method` "stacked", and only then')
        if stacker is None:
            return None
        if isinstance(stacker, Network):
            stacker = Model.from_network(stacker)
        if not isinstance(stacker, Model):
            raise ConfigurationError(f"`stacker` must be a Network or a native Model, was {type(stacker).__name__}")
        kinds = {layer.kind for layer in stacker.layers}
        if not kinds or kinds - STATELESS:
            raise ConfigurationError(
                f"`stacker` must hold layers without state ({', '.join(sorted(STATELESS))}), held "
                f"{', '.join(sorted(kinds)) or 'unknown ones'}"
            )
        total = sum(member.output_size for member in self.members.values())
        if stacker.input_size != total:
            raise ConfigurationError(f"`stacker` must read the members' {total} outputs, reads {stacker.input_size}")
        return stacker

    def _digest(self) -> str:
        digest = hashlib.sha256(self.method.encode())
        if self.stacker is not None:
            digest.update(self.stacker.sha256.encode())
        for (name, member), weight, temperature in zip(
            self.members.items(), self.weights, self.temperatures, strict=True
        ):
            digest.update(f"{name!r} {member.sha256} {weight!r} {temperature!r} {self.windows.get(name, 0)};".encode())
        return digest.hexdigest()

    def session(self) -> EnsembleSession:
        """A new session with every member in zero state."""
        from tengri_fast.inference.ensemble_session import make_session

        return make_session(self)

    def member_session(self, name: str) -> Any:
        """A new session of one member, as the ensemble runs it."""
        model: Any = self.members[name]
        return model.session(window=self.windows[name]) if name in self.windows else model.session()

    def run_window(self, x: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Outputs of a fresh session over rows [T, input_size]; shape [T, output_size].

        Raises
        ------
        InferenceFailed
            If the shape is wrong.
        """
        rows = np.ascontiguousarray(x, dtype=np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.input_size:
            raise InferenceFailed(f"`x` must have shape [T, {self.input_size}], had {list(rows.shape)}")
        session = self.session()
        out = np.empty((len(rows), self.output_size), np.float32)
        for i, row in enumerate(rows):
            out[i] = session.finish(row)
            session.prepare()
        return out

    def __repr__(self) -> str:
        return f"<Ensemble {self.method} of {', '.join(self.members)}: {self.input_size} -> {self.output_size}>"

    def __reduce__(self) -> Any:
        raise TypeError("an Ensemble cannot be pickled: keep its members' files")


def _numbers(field: str, values: Sequence[float], count: int, *, positive: bool) -> tuple[float, ...]:
    try:
        found = tuple(float(value) for value in values)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigurationError(f"`{field}` must hold numbers, was {values!r} ({error})") from None
    if len(found) != count:
        raise ConfigurationError(f"`{field}` must have one entry per member ({count}), had {len(found)}")
    if not all(math.isfinite(value) and (value > 0 or (value == 0 and not positive)) for value in found):
        raise ConfigurationError(f"`{field}` must be finite and {'> 0' if positive else '>= 0'}, was {list(found)}")
    if positive and not all(1e-100 <= value <= 1e100 for value in found):  # beyond, a weighted sum may overflow
        raise ConfigurationError(f"`{field}` must lie within 1e-100 and 1e100, was {list(found)}")
    return found
