// The line that calls.
#pragma once

// As default arguments, behind a function's true ones.
#define SHIM_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()
