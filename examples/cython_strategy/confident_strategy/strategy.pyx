"""The signal stays a C struct from the model to the decision; Python objects appear only when an order is sent."""

from nautilus_trader.model.identifiers cimport InstrumentId

from tengri_fast.nautilus.strategy cimport TengriNeuralStrategy
from tengri_fast.runtime.engine cimport NeuralSignal


cdef class ConfidentStrategy(TengriNeuralStrategy):
    """Enter on a confident signal, leave when the model changes its mind.

    Uses ``min_confidence`` and ``trade_size`` of the configuration.
    """

    cdef double least
    cdef readonly int decisions

    def __init__(self, config, bundle=None):
        super().__init__(config, bundle)
        self.least = config.min_confidence

    cpdef void on_signal(self, signal):
        # Nautilus declares the argument as an object: signals of `subscribe_signal` arrive here too.
        if not isinstance(signal, NeuralSignal):
            return
        cdef NeuralSignal s = signal
        cdef InstrumentId instrument_id = self.config.instrument_id
        cdef int held = self.position_side(instrument_id)
        cdef int wanted = (s.data.probability[2] > s.data.probability[0]) - (
            s.data.probability[2] < s.data.probability[0])
        if s.data.rung != 0 or self.order_in_flight(instrument_id):
            return
        if held == 0 and wanted != 0 and s.data.confidence >= self.least:
            self.decisions += 1
            self.submit_intent(instrument_id, wanted)
        elif held * wanted < 0:
            self.decisions += 1
            self.submit_intent(instrument_id, 0)
