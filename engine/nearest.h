// nearest.h: what somebody who misspelt a name may have meant.
#pragma once
#include <string>
#include <vector>

// "did you mean 'window_size'?", or the list of all names where none is near.
std::string suggestion(const std::string& word, const std::vector<std::string>& names);
