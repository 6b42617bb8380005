// between_nodes.h: a look at the gradients while a backward is under way.
#pragma once
#include <functional>

// While it lives, f runs on this thread whenever a node of a tape has gone back and is destroyed, and behind the last. What nodes yet to come will
// write to, they hold: a gradient slot that only its parameter's store still holds is final. checkpoint() holds the slots used inside it.
class BetweenNodes {
 public:
  explicit BetweenNodes(std::function<void()> f);
  ~BetweenNodes();
  BetweenNodes(const BetweenNodes&) = delete;

 private:
  const std::function<void()> f_;
  const std::function<void()>* outer_;
};
