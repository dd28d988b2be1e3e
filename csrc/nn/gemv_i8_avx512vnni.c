#include "dot_i8_avx512vnni.h"
#include "gemv_i8_x16.h"
