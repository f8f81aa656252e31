#include "asr/recognizer.h"

#include <algorithm>

#include "base/error.h"

namespace chatllm {

Recognizer::Recognizer(const SessionSettings &settings) : session_(settings), thread_(&Recognizer::work, this) {
  std::lock_guard<std::mutex> lock(desk_->mutex);
  desk_->worker = thread_.get_id();
}

Recognizer::~Recognizer() {
  {
    std::lock_guard<std::mutex> lock(desk_->mutex);
    stop_ = true;
    for (const auto &utterance : desk_->open) {
      utterance->cancelled_ = true;
      utterance->wake();
    }
  }
  desk_->changed.notify_all();
  thread_.join();
}

std::shared_ptr<Utterance> Recognizer::submit(std::vector<float> audio, RunSettings settings, bool live,
                                              Listener listener) {
  resolve_language(session_.model().config().languages, settings.language);  // says now that it is unknown
  const auto utterance =
      std::make_shared<Utterance>(desk_, std::move(audio), std::move(settings), live, std::move(listener));
  std::lock_guard<std::mutex> lock(desk_->mutex);
  if (stop_) fail(Status::NotStarted, "the recognizer is being closed");
  desk_->open.push_back(utterance);
  if (!live || !utterance->arrived_.empty()) utterance->wake();
  return utterance;
}

bool Recognizer::idle() const {
  std::lock_guard<std::mutex> lock(desk_->mutex);
  return desk_->open.empty();
}

bool Recognizer::on_worker_thread() const {
  return std::this_thread::get_id() == thread_.get_id();
}

// The utterance that has waited longest; null when the recognizer is closed.
std::shared_ptr<Utterance> Recognizer::next() {
  std::unique_lock<std::mutex> lock(desk_->mutex);
  for (;;) {
    std::shared_ptr<Utterance> first;
    for (const auto &utterance : desk_->open)
      if (utterance->news_ != 0 && (first == nullptr || utterance->news_ < first->news_)) first = utterance;
    if (first != nullptr) {
      first->news_ = 0;
      return first;
    }
    if (stop_) return nullptr;
    desk_->changed.wait(lock);
  }
}

void Recognizer::end(Utterance &utterance, Event event) {
  {
    std::lock_guard<std::mutex> lock(desk_->mutex);
    utterance.ended_ = true;
  }
  event.kind = Event::Kind::End;
  utterance.tell(event);
  std::lock_guard<std::mutex> lock(desk_->mutex);
  auto &open = desk_->open;
  open.erase(std::find_if(open.begin(), open.end(), [&](const auto &u) { return u.get() == &utterance; }));
  desk_->changed.notify_all();
}

// One hypothesis of all audio so far: the only one, or one step of a live utterance.
void Recognizer::advance(Utterance &utterance) {
  bool last = true;
  Event event{Event::Kind::End};
  chatllm_asr_timings timings{};
  try {
    {
      std::lock_guard<std::mutex> lock(desk_->mutex);
      utterance.audio_.insert(utterance.audio_.end(), utterance.arrived_.begin(), utterance.arrived_.end());
      utterance.arrived_ = {};
      last = utterance.last_;
    }
    std::lock_guard<FairMutex> lock(machine_);
    check_abort(utterance.cancelled_);
    if (!utterance.begun_) utterance.tell({Event::Kind::Begin});
    utterance.begun_ = true;
    auto sink = [&](const chatllm_asr_token &token) { utterance.tell({Event::Kind::Token, &token}); };
    session_.run(utterance.audio_.data(), static_cast<int64_t>(utterance.audio_.size()), utterance.settings_, sink,
                 utterance.cancelled_);
    timings = session_.timings();
  } catch (const Aborted &) {
    timings.finish = CHATLLM_ASR_FINISH_ABORT;
  } catch (const Error &e) {
    event.failed = true;
    event.status = e.status();
    event.message = e.what();
  } catch (const std::bad_alloc &) {
    event.failed = true;
    event.status = Status::NoMemory;
  }
  event.timings = &timings;
  if (last || event.failed || timings.finish == CHATLLM_ASR_FINISH_ABORT) return end(utterance, event);
  event.kind = Event::Kind::Step;
  utterance.tell(event);
}

void Recognizer::work() {
  prepare_to_throw();
  {
    std::lock_guard<std::mutex> lock(desk_->mutex);
    desk_->worker = std::this_thread::get_id();
  }
  while (const auto utterance = next()) advance(*utterance);
}

}  // namespace chatllm
