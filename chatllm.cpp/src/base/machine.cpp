#include "base/machine.h"

#include <map>
#include <mutex>

#include "base/fork.h"

namespace chatllm {

namespace {

struct Machine {
  FairMutex turn;
  std::mutex mutex;
  std::map<int, std::weak_ptr<ThreadPool>> pools;
};

// Never destroyed: objects may outlive static destruction. The child of a fork has none of the threads, and begins with
// an empty one.
Machine *make_machine();
Machine *machine = make_machine();

Machine *make_machine() {
  in_child_of_fork([] { machine = new Machine; });
  return new Machine;
}

}  // namespace

std::shared_ptr<ThreadPool> shared_pool(int threads) {
  std::lock_guard<std::mutex> lock(machine->mutex);
  std::weak_ptr<ThreadPool> &place = machine->pools[threads];
  std::shared_ptr<ThreadPool> pool = place.lock();
  if (pool == nullptr) place = pool = std::make_shared<ThreadPool>(threads);
  return pool;
}

FairMutex &machine_turn() {
  return machine->turn;
}

}  // namespace chatllm
