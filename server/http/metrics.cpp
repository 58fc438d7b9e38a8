#include "metrics.h"

#include <algorithm>
#include <charconv>

namespace dcrnn_fast::server {
namespace {

// The shortest decimal that reads back as the same double, without an exponent.
std::string decimal(double value) {
  char text[400];
  return {text, std::to_chars(text, std::end(text), value, std::chars_format::fixed).ptr};
}

void family(std::string& out, const char* name, const char* type, const char* help) {
  out.append("# HELP ").append(name).append(" ").append(help).append("\n# TYPE ").append(name).append(" ").append(type).append("\n");
}

void line(std::string& out, const std::string& name, const std::string& label, const std::string& value, const std::string& number) {
  out.append(name);
  if (!label.empty()) {
    out.append("{").append(label).append("=\"");
    for (const char c : value) c == '\n' ? out.append("\\n") : c == '"' || c == '\\' ? out.append({'\\', c}) : out.append(1, c);
    out.append("\"}");
  }
  out.append(" ").append(number).append("\n");
}

}  // namespace

void Histogram::observe(double value) {
  const auto bucket = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
  const std::lock_guard lock(mutex_);
  ++counts_[static_cast<std::size_t>(bucket)];
  sum_ += value;
}

void Histogram::write(std::string& out, const std::string& name) const {
  const std::lock_guard lock(mutex_);
  std::uint64_t count = 0;
  for (std::size_t i = 0; i < counts_.size(); ++i) {
    count += counts_[i];
    line(out, name + "_bucket", "le", i < bounds_.size() ? decimal(bounds_[i]) : "+Inf", std::to_string(count));
  }
  line(out, name + "_sum", "", "", decimal(sum_));
  line(out, name + "_count", "", "", std::to_string(count));
}

void Metrics::request(unsigned status) {
  const auto found = std::find(kStatuses.begin(), kStatuses.end(), status);
  if (found != kStatuses.end()) ++requests_[static_cast<std::size_t>(found - kStatuses.begin())];
}

std::string Metrics::text(const std::string& model_id, const std::vector<Unseen::Field>& fields) const {
  std::string out;
  family(out, "dcrnn_fast_requests_total", "counter", "Answers by HTTP status.");
  for (std::size_t i = 0; i < kStatuses.size(); ++i)
    line(out, "dcrnn_fast_requests_total", "status", std::to_string(kStatuses[i]), std::to_string(requests_[i]));
  family(out, "dcrnn_fast_rows_total", "counter", "Rows that were scored.");
  line(out, "dcrnn_fast_rows_total", "", "", std::to_string(rows_));
  family(out, "dcrnn_fast_request_seconds", "histogram", "From the arrival of a request for scores to its answer.");
  seconds.write(out, "dcrnn_fast_request_seconds");
  family(out, "dcrnn_fast_batch_rows", "histogram", "Rows that were scored at once.");
  batch_rows.write(out, "dcrnn_fast_batch_rows");
  family(out, "dcrnn_fast_queue_rows", "gauge", "Rows that wait to be scored.");
  line(out, "dcrnn_fast_queue_rows", "", "", std::to_string(queue_rows));
  family(out, "dcrnn_fast_rejected_total", "counter", "Requests that were answered 503, by reason.");
  constexpr std::array reasons{"overload", "deadline", "stopping", "failed"};  // as in Refusal
  for (std::size_t i = 0; i < reasons.size(); ++i)
    line(out, "dcrnn_fast_rejected_total", "reason", reasons[i], std::to_string(rejected_[i]));
  family(out, "dcrnn_fast_reloads_total", "counter", "Loads of the model after the first one.");
  line(out, "dcrnn_fast_reloads_total", "result", "ok", std::to_string(reloads_[0]));
  line(out, "dcrnn_fast_reloads_total", "result", "failed", std::to_string(reloads_[1]));
  family(out, "dcrnn_fast_model_info", "gauge", "The model that scores new requests.");
  line(out, "dcrnn_fast_model_info", "model", model_id, "1");
  const auto rates = [&](const char* name, const char* help, auto of, auto rate) {
    family(out, name, "gauge", help);
    for (const Unseen::Field& field : fields)
      if (const std::optional<double>& found = field.*of.*rate) line(out, name, "field", field.name, decimal(*found));
  };
  using Field = Unseen::Field;
  using Rates = Unseen::Rates;
  rates("dcrnn_fast_oov_rate", "Share of cells out of vocabulary in about the last 2,000 rows.", &Field::now, &Rates::oov);
  rates("dcrnn_fast_missing_rate", "Share of missing cells in about the last 2,000 rows.", &Field::now, &Rates::missing);
  rates("dcrnn_fast_train_oov_rate", "Share of cells out of vocabulary in the train rows.", &Field::trained, &Rates::oov);
  rates("dcrnn_fast_train_missing_rate", "Share of missing cells in the train rows.", &Field::trained, &Rates::missing);
  return out;
}

}  // namespace dcrnn_fast::server
