from tengri_fast.runtime.engine_core cimport EngineCore
from tengri_fast.runtime.signal cimport NeuralSignal, tf_signal


cdef class TengriNeuralEngine(EngineCore):
    pass
