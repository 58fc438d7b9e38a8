// The MD5 digest of a text (RFC 1321), by which hashed fields choose their buckets, and by which a package says what its encoder is.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace dcrnn_fast::server {

inline std::array<std::uint32_t, 4> md5(std::string_view text) {
  // floor(2^32 |sin(i + 1)|)
  constexpr std::uint32_t sines[64] = {
      0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501, 0x698098d8, 0x8b44f7af, 0xffff5bb1,
      0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821, 0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453,
      0xd8a1e681, 0xe7d3fbc8, 0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a, 0xfffa3942,
      0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70, 0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05,
      0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665, 0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d,
      0x85845dd1, 0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391};
  constexpr int turns[4][4] = {{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};
  static_assert(std::endian::native == std::endian::little, "words are read as they lie in memory");

  std::array<std::uint32_t, 4> state{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
  const auto add = [&](const char* block) {
    std::uint32_t words[16];
    std::memcpy(words, block, 64);
    auto [a, b, c, d] = state;
    for (unsigned i = 0; i < 64; ++i) {
      const unsigned round = i / 16;
      const std::uint32_t mixed = round == 0 ? (b & c) | (~b & d) : round == 1 ? (b & d) | (c & ~d) : round == 2 ? b ^ c ^ d : c ^ (b | ~d);
      const unsigned word = (round == 0 ? i : round == 1 ? 5 * i + 1 : round == 2 ? 3 * i + 5 : 7 * i) % 16;
      const std::uint32_t sum = a + mixed + sines[i] + words[word];
      a = d, d = c, c = b, b += std::rotl(sum, turns[round][i % 4]);
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d;
  };

  const std::uint64_t bits = text.size() * 8;
  for (; text.size() >= 64; text.remove_prefix(64)) add(text.data());
  char last[128] = {};
  text.copy(last, text.size());
  last[text.size()] = static_cast<char>(0x80);
  const std::size_t end = text.size() < 56 ? 64 : 128;
  std::memcpy(last + end - 8, &bits, 8);
  for (std::size_t at = 0; at < end; at += 64) add(last + at);
  return state;
}

// The digest in hex.
inline std::string md5_hex(std::string_view text) {
  constexpr char digits[] = "0123456789abcdef";
  const auto state = md5(text);
  std::string hex;
  for (const std::uint32_t word : state)
    for (unsigned shift = 0; shift < 32; shift += 8) hex += {digits[word >> (shift + 4) & 15], digits[word >> shift & 15]};
  return hex;
}

}  // namespace dcrnn_fast::server
