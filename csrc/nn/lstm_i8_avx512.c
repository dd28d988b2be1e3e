#include "dot_i8_avx512.h"
#include "lstm_i8_x16.h"
