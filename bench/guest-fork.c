/*
 * A guest that is forked (bench/fork): its first processor runs, writes one page after the other of
 * the memory that it is told of, and looks at its clock all the time. When that stood still for
 * GAP_US it says when, and for how long; when its generation id has changed, so that it is a child,
 * the time at which it saw that, which is that of its first instructions. The second one spins, or
 * is halted.
 */
#include "hv.h"

int main_placeholder;
