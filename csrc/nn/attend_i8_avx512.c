#include "dot_i8_avx512.h"
#include "attend_i8_x16.h"
