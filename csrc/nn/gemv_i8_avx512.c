#include "dot_i8_avx512.h"
#include "gemv_i8_x16.h"
