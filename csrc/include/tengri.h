/* tengri_fast: public C interface. Compiles alone as C11 and as C++17. */
#ifndef TENGRI_H
#define TENGRI_H

#include "tengri/isa.h"
#include "tengri/events.h"
#include "tengri/book.h"
#include "tengri/features.h"
#include "tengri/nn.h"
#include "tengri/risk.h"
#include "tengri/risk_limits.h"
#include "tengri/audit.h"

#endif
