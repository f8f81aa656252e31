// The machine that everything in the process runs on: its threads are shared, and worked on in turns.
#pragma once

#include <memory>

#include "base/fair_mutex.h"
#include "base/thread_pool.h"

namespace chatllm {

// The process's pool of this many threads; it lives as long as somebody holds it.
std::shared_ptr<ThreadPool> shared_pool(int threads);

// Whoever runs parallel regions on a shared pool holds this, for one bounded piece of work: two recognizers do not ask
// more of the processors than one.
FairMutex &machine_turn();

}  // namespace chatllm
