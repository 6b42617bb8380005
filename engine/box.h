// box.h: a rectangle of pixels.
#pragma once

struct Box {
  int top = 0, left = 0, height = 0, width = 0;   // height 0: nothing
};
