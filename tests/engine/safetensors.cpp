// safetensors: the bytes of the reference library, read and written, and every way in which a file can be broken.
#include "engine/safetensors.h"

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "engine/check.h"
#include "engine/durable_file.h"
#include "engine/random.h"

namespace {

namespace fs = std::filesystem;

struct Folder {  // gone when the test ends
  fs::path path = fs::temp_directory_path() / str("lipsgrad-safetensors-", getpid());
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
  std::string operator/(const char* name) const { return (path / name).string(); }
};

std::string slurp(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void spill(const std::string& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

// A file of this header, whose length field tells the truth, and so many bytes of data.
std::string with_header(const std::string& header, size_t data) {
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + std::string(data, '\1');
}

// What the reader says of these bytes: "" if they are a good file.
std::string complaint(const std::string& bytes) {
  Folder folder;
  const std::string path = folder / "x.safetensors";
  spill(path, bytes);
  try {
    const SafetensorsFile file(path);
    unsigned sum = 0;  // every byte that it promises can be read
    for (const auto& [name, tensor] : file.tensors())
      for (size_t i = 0; i < tensor.bytes; i++) sum += tensor.data[i];
    return sum == 0x7fffffff ? "?" : "";
  } catch (const Error& error) {
    CHECK(error.exit == Exit::bad_data);
    const std::string what = error.what();
    CHECK(what.starts_with(path + ": "));
    CHECK(what.find('\n') == std::string::npos);
    return what.substr(path.size() + 2);
  }
}

template <class F>
Error caught(F f) {
  try {
    f();
  } catch (const Error& error) {
    return error;
  }
  return Error(Exit::ok, "nothing was thrown");
}

const char* const golden = SOURCE_DIR "/tests/golden/safetensors.safetensors";
const std::string one_tensor = R"({"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}})";

}  // namespace

TEST_CASE("safetensors: the documented example, byte for byte") {
  Folder folder;
  const std::string path = folder / "w.safetensors";
  const float w[4] = {1, 2, 3, 4};
  write_safetensors(path, {{"w", {"F32", {2, 2}, reinterpret_cast<const uint8_t*>(w), sizeof w}}});
  const std::string bytes = slurp(path);
  CHECK(bytes.size() == 88);
  CHECK(bytes.substr(0, 8) == std::string("\x40\0\0\0\0\0\0\0", 8));
  CHECK(bytes.substr(8, 64) == one_tensor + "       ");
  CHECK(bytes.substr(72) == std::string("\0\0\x80\x3f\0\0\0\x40\0\0\x40\x40\0\0\x80\x40", 16));
}

TEST_CASE("safetensors: a file of the reference library is read, and written again byte for byte") {
  const SafetensorsFile file(golden);
  CHECK(file.tensors().size() == 9);
  CHECK(file.metadata() == std::map<std::string, std::string>{{"format", "pt"}});

  const SafetensorsEntry& weight = file.tensors().at("weight");
  CHECK(weight.dtype == "F32");
  CHECK(weight.shape == std::vector<int64_t>{2, 3});
  float values[6];
  REQUIRE(weight.bytes == sizeof values);
  std::memcpy(values, weight.data, sizeof values);
  for (int i = 0; i < 6; i++) CHECK(values[i] == 0.25f * i);

  CHECK(file.tensors().at("scalar").shape.empty());
  CHECK(file.tensors().at("scalar").bytes == 4);
  CHECK(file.tensors().at("empty").shape == std::vector<int64_t>{0, 4});
  CHECK(file.tensors().at("empty").bytes == 0);
  CHECK(file.tensors().at("bytes").data[2] == 255);
  CHECK(file.tensors().at("na\"me\n\u00fc").dtype == "I32");

  Folder folder;
  write_safetensors(folder / "again.safetensors", file.tensors(), file.metadata());
  CHECK(slurp(folder / "again.safetensors") == slurp(golden));
}

TEST_CASE("safetensors: a file without tensors, and one whose data is not aligned") {
  CHECK(complaint(with_header("{}", 0)) == "");
  CHECK(complaint(with_header(one_tensor, 16)) == "");
}

TEST_CASE("safetensors: every kind of damage is refused in one line") {
  const auto says = [](const std::string& bytes, const std::string& part) {
    CAPTURE(part);
    CHECK_MESSAGE(complaint(bytes).find(part) != std::string::npos, complaint(bytes));
  };
  const auto entry = [](const std::string& fields) { return with_header(R"({"w":{)" + fields + "}}", 16); };

  says("", "0 bytes");
  says("1234567", "7 bytes");
  says(with_header("", 0), "does not begin with {");
  says(with_header(" {}", 0), "does not begin with {");
  says(with_header("[1]", 0), "does not begin with {");
  says(with_header("{", 0), "not valid JSON");
  says(with_header("{}x", 0), "not valid JSON");
  says(with_header("{\"\xff\":1}", 0), "not valid JSON");
  says(std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10), "more than the format allows");
  says(std::string("\x10\0\0\0\0\0\0\0{}", 10), "claims 16 bytes, the file holds 2");
  says(with_header(R"({"a":{"b":{"c":{"d":{"e":1}}}}})", 0), "nested too deeply");

  says(with_header(one_tensor, 15), "truncated");
  says(with_header(one_tensor, 17), "1 bytes after the last tensor");
  says(with_header("{}", 1), "1 bytes after the last tensor");
  says(with_header(R"({"w":1})", 0), "exactly dtype, shape and data_offsets");
  says(entry(R"("dtype":"F32","shape":[4])"), "exactly dtype, shape and data_offsets");
  says(entry(R"("dtype":"F32","shape":[4],"data_offsets":[0,16],"x":1)"), "exactly dtype, shape and data_offsets");
  says(entry(R"("dtype":"F33","shape":[4],"data_offsets":[0,16])"), "unknown dtype \"F33\"");
  says(entry(R"("dtype":32,"shape":[4],"data_offsets":[0,16])"), "unknown dtype");
  says(entry(R"("dtype":"F32","shape":4,"data_offsets":[0,16])"), "is not a list");
  says(entry(R"("dtype":"F32","shape":[-4],"data_offsets":[0,16])"), "not a size");
  says(entry(R"("dtype":"F32","shape":[4.0],"data_offsets":[0,16])"), "not a size");
  says(entry(R"("dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,16])"), "not a size");
  says(entry(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,16])"), "impossible");
  says(entry(R"("dtype":"F4","shape":[3],"data_offsets":[0,16])"), "impossible");
  says(entry(R"("dtype":"F32","shape":[5],"data_offsets":[0,16])"),
       "needs 20 bytes for its shape, data_offsets give it 16");
  says(entry(R"("dtype":"F32","shape":[4],"data_offsets":[16,0])"), "backwards");
  says(entry(R"("dtype":"F32","shape":[4],"data_offsets":[0])"), "two sizes");
  says(entry(R"("dtype":"F32","shape":[4],"data_offsets":[-16,0])"), "two sizes");

  const auto two = [](const std::string& a, const std::string& b) {
    return with_header(R"({"a":{"dtype":"U8","shape":[8],"data_offsets":)" + a +
                           R"(},"b":{"dtype":"U8","shape":[8],"data_offsets":)" + b + "}}",
                       16);
  };
  CHECK(complaint(two("[8,16]", "[0,8]")) == "");
  says(two("[0,8]", "[0,8]"), "does not begin where the tensor before it ends");
  says(two("[0,8]", "[7,15]"), "does not begin where the tensor before it ends");
  says(two("[1,9]", "[9,17]"), "truncated");
  says(with_header(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2), "does not begin where");

  says(
      with_header(
          R"({"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
          0),
      "names \"w\" twice");
  says(entry(R"("dtype":"F32","shape":[4],"shape":[4],"data_offsets":[0,16])"), "names \"shape\" twice");
  says(with_header(R"({"__metadata__":{"a":1}})", 0), "is not a string");
  says(with_header(R"({"__metadata__":[]})", 0), "is not an object");
}

TEST_CASE("safetensors: a mutated file is either good or refused, never anything else") {
  const std::string good = slurp(golden);
  RandomSequence draw(RandomStream(0, "safetensors mutations"), 0, 0);
  const auto below = [&](size_t n) { return std::min(n - 1, static_cast<size_t>(draw.uniform() * n)); };
  int refused = 0;
  for (int round = 0; round < 4000; round++) {
    std::string bytes = good;
    for (size_t edits = 1 + below(3); edits > 0; edits--) {
      const size_t at = below(std::min<size_t>(bytes.size(), round % 4 == 0 ? 16 : bytes.size()));
      switch (below(5)) {
        case 0: bytes[at] ^= static_cast<char>(1 << below(8)); break;
        case 1: bytes[at] = "{}[]\",:0919\\"[below(12)]; break;
        case 2: bytes.erase(at + 1, 1 + below(9)); break;
        case 3: bytes.insert(at, bytes.substr(below(bytes.size()), 1 + below(40))); break;
        case 4: bytes.resize(std::max<size_t>(1, at)); break;
      }
    }
    refused += complaint(bytes) != "";
  }
  CHECK(refused > 2000);
  CHECK(refused < 4000);  // a flipped bit of the data is not damage that the format can see
}

TEST_CASE("safetensors: what cannot be read") {
  Folder folder;
  const Error missing = caught([&] { SafetensorsFile(folder / "missing"); });
  CHECK(missing.exit == Exit::no_input);
  CHECK(std::string(missing.what()).find("No such file") != std::string::npos);
  CHECK(caught([&] { SafetensorsFile(folder.path.string()); }).exit == Exit::no_input);
  CHECK(caught([&] { SafetensorsFile("/dev/null"); }).exit == Exit::no_input);
}

TEST_CASE("safetensors: a mistake of the caller is named before a byte is written") {
  Folder folder;
  const std::string path = folder / "w.safetensors";
  const uint8_t data[8] = {};
  CHECK(caught([&] { write_safetensors(path, {{"w", {"F32", {3}, data, 8}}}); }).exit == Exit::internal);
  CHECK(caught([&] { write_safetensors(path, {{"w", {"float", {2}, data, 8}}}); }).exit == Exit::internal);
  CHECK(caught([&] { write_safetensors(path, {{"__metadata__", {"F32", {2}, data, 8}}}); }).exit == Exit::internal);
  CHECK(fs::is_empty(folder.path));
}

TEST_CASE("durable file: a failed write leaves the old file and nothing else") {
  Folder folder;
  const std::string path = folder / "x";
  write_file_atomically(path, "old");

  CHECK(caught([&] { write_file_atomically(folder / "no/such/folder", ""); }).exit == Exit::cannot_create);
  CHECK(caught([&] { write_file_atomically("/proc/x", ""); }).exit == Exit::cannot_create);
  {
    DurableFile abandoned(path);
    abandoned.write("new");
  }
  CHECK(slurp(path) == "old");

  // A limit on the size of files stands for the full disk: the system refuses the bytes in the middle of a write.
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit tight{1000, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &tight);
  const Error full = caught([&] { write_file_atomically(path, std::string(5000, 'n')); });
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  CHECK(full.exit == Exit::io);
  CHECK(std::string(full.what()).find(path) != std::string::npos);
  CHECK(slurp(path) == "old");
  CHECK(std::distance(fs::directory_iterator(folder.path), {}) == 1);
}
