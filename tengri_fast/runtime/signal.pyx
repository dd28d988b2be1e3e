"""What a model says about one instrument at one event, as C struct and as Python object."""

from libc.stdint cimport uint64_t


cdef class NeuralSignal:
    """What a model says about one instrument at one event.

    The engine hands out one object that it overwrites at the next signal; ``copy()`` keeps it.
    """

    def __init__(self):
        raise TypeError("NeuralSignal is made by the engine, not by hand")

    @property
    def value(self):
        """Expected mid return over the horizon in basis points; positive is up."""
        return self.data.value

    @property
    def probabilities(self):
        """Calibrated probabilities (down, flat, up); they sum to one."""
        return (self.data.probability[0], self.data.probability[1], self.data.probability[2])

    @property
    def confidence(self):
        """Calibrated maximum probability, 0 when no model stands behind the signal."""
        return self.data.confidence

    @property
    def direction(self):
        """+1 when up is likelier than down, -1 the other way round, 0 on a tie."""
        return (self.data.probability[2] > self.data.probability[0]) - (
            self.data.probability[2] < self.data.probability[0])

    @property
    def mid(self):
        """Mid price the signal was made at."""
        return self.data.mid

    @property
    def spread(self):
        """Quoted spread in price units."""
        return self.data.spread

    @property
    def ts_event(self):
        """Time of the event behind the signal, UTC nanoseconds."""
        return self.data.ts_event

    @property
    def computed_at(self):
        """Wall clock when the signal was ready, UTC nanoseconds; 0 unless the engine stamps."""
        return self.data.computed_at

    @property
    def latency_ns(self):
        """Nanoseconds from the event's arrival to the signal; 0 unless the engine stamps."""
        return self.data.latency

    @property
    def horizon(self):
        """Length of the horizon, in ``horizon_unit``."""
        return self.data.horizon

    @property
    def sequence(self):
        """Number of this signal for its instrument, from 1."""
        return self.data.sequence

    @property
    def instrument_id(self):
        """Name of the instrument the signal is about."""
        return self.names[self.data.slot]

    @property
    def slot(self):
        """The engine's number for the instrument."""
        return self.data.slot

    @property
    def rung(self):
        """Step of the ladder that made the signal: 0 the model, 4 flat (the model's answer was not finite)."""
        return self.data.rung

    def age(self, uint64_t now):
        """Nanoseconds between the event and ``now``; 0 when ``now`` is not later."""
        return now - self.data.ts_event if now > self.data.ts_event else 0

    cpdef NeuralSignal copy(self):
        """An independent copy that the engine does not touch."""
        cdef NeuralSignal other = NeuralSignal.__new__(NeuralSignal)
        other.data = self.data
        other.model_id = self.model_id
        other.model_hash = self.model_hash
        other.feature_hash = self.feature_hash
        other.names = self.names
        other.horizon_unit = self.horizon_unit
        return other

    def __reduce__(self):
        raise TypeError("NeuralSignal cannot be pickled")

    def __repr__(self):
        return (f"NeuralSignal({self.instrument_id} value={self.data.value:+.4f}bps "
                f"p=({self.data.probability[0]:.3f}, {self.data.probability[1]:.3f}, {self.data.probability[2]:.3f}) "
                f"ts_event={self.data.ts_event} rung={self.data.rung})")
