// The bodies of answers.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "../model/model.h"
#include "service.h"

namespace dcrnn_fast::server {

// The scores [names, rows] of a request.
Answer scores_answer(const Model& model, std::int64_t rows, const std::vector<float>& scores);

Answer model_answer(const Model& model, const Limits& limits);

// 405, with the method that is allowed.
Answer not_allowed(std::string_view method, std::string_view allowed);

}  // namespace dcrnn_fast::server
