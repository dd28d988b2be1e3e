#include "dot_i8_avxvnni.h"
#include "products_i8_x8.h"
