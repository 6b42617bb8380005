// The entry point of every test suite. `--help` lists doctest's options; -tc=NAME runs one case.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
