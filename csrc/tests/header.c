/* Compiled as C11 and as C++17, nothing else included: the public header stands alone. */
#include "tengri.h"

int tf_header_stands_alone(void);
int tf_header_stands_alone(void) { return (int)sizeof(tf_node_desc) > 0 && TF_ISA_COUNT == 7; }
