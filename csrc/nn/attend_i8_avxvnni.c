#include "dot_i8_avxvnni.h"
#include "attend_i8_x8.h"
