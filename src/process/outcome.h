/* What is said to the user about a machine's end, and the exit code of umbra run. */
#pragma once

#include "broker.h"
#include "plan.h"

int outcome_report(struct broker_end *end, const struct plan *plan);
