#include "asr/utterance.h"

#include "base/clock.h"

namespace chatllm {

Utterance::Utterance(std::shared_ptr<Desk> desk, Request request, Listener listener)
    : desk_(std::move(desk)),
      settings_(std::move(request.settings)),
      live_(request.live),
      continues_(request.continues),
      suffix_(std::move(request.suffix)),
      listener_(std::move(listener)),
      arrived_(std::move(request.audio)),
      last_(!request.live),
      conversation_(std::move(request.conversation)) {
  if (conversation_ == nullptr) return;
  length_before_ = conversation_->sequence.length();
  pending_before_ = conversation_->pending;
}

void Utterance::wake() {
  if (ended_) return;
  if (news_ == 0) {
    news_ = ++desk_->arrivals;
    news_ns_ = now_ns();
  }
  desk_->news = true;
  desk_->changed.notify_all();
}

void Utterance::feed(const float *pcm, int64_t samples, bool last) {
  if (samples < 0 || (samples > 0 && pcm == nullptr)) fail(Status::BadArgument, "the audio to feed is NULL");
  std::lock_guard<std::mutex> lock(desk_->mutex);
  if (!live_) fail(Status::BadArgument, "only live utterances take more audio: set live in the options of submit");
  if (ended_) fail(Status::BadArgument, "the utterance has ended");
  if (last_) fail(Status::BadArgument, "the last audio of this utterance was given already");
  arrived_.insert(arrived_.end(), pcm, pcm + samples);
  last_ = last;
  if (samples > 0 || last) wake();
}

void Utterance::cancel() {
  cancelled_ = true;
  std::lock_guard<std::mutex> lock(desk_->mutex);
  wake();
}

void Utterance::detach() {
  cancel();
  std::unique_lock<std::mutex> lock(desk_->mutex);
  detached_ = true;
  if (std::this_thread::get_id() == desk_->worker) return;  // the listener is below us on the stack, or not at work
  desk_->changed.wait(lock, [&] { return !telling_; });
}

void Utterance::tell(const Event &event) {
  {
    std::lock_guard<std::mutex> lock(desk_->mutex);
    if (detached_) return;
    telling_ = true;
  }
  listener_(event);
  std::lock_guard<std::mutex> lock(desk_->mutex);
  telling_ = false;
  desk_->changed.notify_all();
}

}  // namespace chatllm
