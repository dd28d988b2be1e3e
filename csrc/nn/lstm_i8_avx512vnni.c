#include "dot_i8_avx512vnni.h"
#include "lstm_i8_x16.h"
