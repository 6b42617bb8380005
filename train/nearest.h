// nearest.h: the suggestions of engine/nearest.h, where the command line looks for them.
#pragma once
#include "engine/nearest.h"
