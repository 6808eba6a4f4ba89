// The line that calls.
#pragma once

// As default arguments, behind a function's true ones.
#define EMULATOR_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()
