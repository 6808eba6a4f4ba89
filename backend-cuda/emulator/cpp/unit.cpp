// What is compiled: all kernels, and the way to launch them.
#include "all.cu"

#include "launch.h"
