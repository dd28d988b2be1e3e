#include "dot_i8_avx2.h"
#include "products_i8_x8.h"
