// schedules.h: the orders in which a test lets fibers run a block. The thread sanitizer sees a race in any of them, so one is enough for it.
#pragma once

#ifdef __SANITIZE_THREAD__
inline constexpr unsigned schedules[] = {0};
#else
inline constexpr unsigned schedules[] = {0, 1, 2};
#endif
