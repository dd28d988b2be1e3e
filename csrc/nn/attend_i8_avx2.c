#include "dot_i8_avx2.h"
#include "attend_i8_x8.h"
