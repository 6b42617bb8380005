// comm_tcp.cpp: ranks that srun or torchrun started, over a connection between each two.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "engine/comm_host.h"

namespace {

using Clock = Messenger::Clock;
using Deadline = Clock::time_point;

struct Socket {
  int fd = -1;
  Socket() = default;
  explicit Socket(int fd) : fd(fd) {}
  Socket(Socket&& other) noexcept : fd(std::exchange(other.fd, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(fd, other.fd);
    return *this;
  }
  ~Socket() {
    if (fd >= 0) ::close(fd);
  }
};

// A way across one socket, of which `done` bytes are over.
struct Transfer {
  int peer;
  bool receives;
  char* data;
  size_t bytes, done = 0;
};

// Moves what can be moved now. False if the other end is gone.
bool advance(const Socket& socket, Transfer& t) {
  while (t.done < t.bytes) {
    const ssize_t n = t.receives ? ::recv(socket.fd, t.data + t.done, t.bytes - t.done, MSG_DONTWAIT)
                                 : ::send(socket.fd, t.data + t.done, t.bytes - t.done, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0) t.done += size_t(n);
    else if (n < 0 && errno == EINTR) continue;
    else return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
  }
  return true;
}

// One of rank 0's callers, or a pair while they connect.
bool transfer_all(const Socket& socket, bool receives, void* data, size_t bytes, Deadline deadline) {
  Transfer t{0, receives, static_cast<char*>(data), bytes};
  while (t.done < t.bytes) {
    if (!advance(socket, t) || Clock::now() > deadline) return false;
    pollfd p{socket.fd, short(receives ? POLLIN : POLLOUT), 0};
    if (t.done < t.bytes) ::poll(&p, 1, 50);
  }
  return true;
}

class Tcp : public Messenger {
 public:
  Tcp(int rank, std::vector<Socket> peers) : Messenger(rank, int(peers.size())), peers_(std::move(peers)) {}

  void trade(const std::vector<Message>& out, const std::vector<Message>& in, Deadline deadline) override {
    std::vector<Transfer> open;   // per peer and direction in order
    for (const Message& m : out) open.push_back({m.peer, false, m.data, m.bytes});
    for (const Message& m : in) open.push_back({m.peer, true, m.data, m.bytes});
    while (true) {
      Missing gone;
      std::vector<pollfd> waiting;
      std::vector<std::pair<int, bool>> busy;   // only the first open transfer of a way may move
      for (Transfer& t : open) {
        if (std::find(busy.begin(), busy.end(), std::pair(t.peer, t.receives)) != busy.end()) continue;
        if (!advance(peers_[t.peer], t) && std::find(gone.gone.begin(), gone.gone.end(), t.peer) == gone.gone.end()) gone.gone.push_back(t.peer);
        if (t.done == t.bytes) continue;
        busy.emplace_back(t.peer, t.receives);
        waiting.push_back({peers_[t.peer].fd, short(t.receives ? POLLIN : POLLOUT), 0});
      }
      std::erase_if(open, [](const Transfer& t) { return t.done == t.bytes; });
      if (open.empty()) return;
      if (!gone.gone.empty()) throw gone;
      if (stopping || Clock::now() > deadline) throw late(open);
      ::poll(waiting.data(), waiting.size(), 50);
    }
  }

 private:
  static Missing late(const std::vector<Transfer>& open) {
    Missing missing;
    for (const Transfer& t : open)
      if (std::find(missing.late.begin(), missing.late.end(), t.peer) == missing.late.end()) missing.late.push_back(t.peer);
    return missing;
  }

  std::vector<Socket> peers_;   // [rank]; none to oneself
};

Socket listen_at(int port) {
  Socket socket(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1, off = 0;
  ::setsockopt(socket.fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  ::setsockopt(socket.fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  sockaddr_in6 any{};
  any.sin6_family = AF_INET6;
  any.sin6_port = htons(uint16_t(port));
  sockaddr_in any4{};
  any4.sin_family = AF_INET;
  any4.sin_port = any.sin6_port;
  if (socket.fd < 0) {   // a machine without IPv6
    socket = Socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ::setsockopt(socket.fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (::bind(socket.fd, reinterpret_cast<sockaddr*>(&any4), sizeof any4) != 0 || ::listen(socket.fd, 4096) != 0)
      fail(Exit::unavailable, "cannot listen at port ", port, ": ", std::strerror(errno));
  } else if (::bind(socket.fd, reinterpret_cast<sockaddr*>(&any), sizeof any) != 0 || ::listen(socket.fd, 4096) != 0) {
    fail(Exit::unavailable, "cannot listen at port ", port, ": ", std::strerror(errno), "; set MASTER_PORT to a free one");
  }
  return socket;
}

int port_of(const Socket& socket) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  ::getsockname(socket.fd, reinterpret_cast<sockaddr*>(&address), &length);
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(address).sin6_port : reinterpret_cast<sockaddr_in&>(address).sin_port);
}

void quicken(const Socket& socket) {
  const int on = 1;
  ::setsockopt(socket.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  ::setsockopt(socket.fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

// Where a rank listens, as the table of rank 0 has it.
struct Place {
  int32_t rank, port;
  char host[64];
};

Socket accept_at(const Socket& listener, Deadline deadline, Place* from = nullptr) {
  while (Clock::now() < deadline) {
    pollfd p{listener.fd, POLLIN, 0};
    if (::poll(&p, 1, 50) <= 0) continue;
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    Socket socket(::accept4(listener.fd, reinterpret_cast<sockaddr*>(&address), &length, SOCK_CLOEXEC));
    if (socket.fd < 0) continue;
    quicken(socket);
    if (from) ::getnameinfo(reinterpret_cast<sockaddr*>(&address), length, from->host, sizeof from->host, nullptr, 0, NI_NUMERICHOST);
    return socket;
  }
  return {};
}

Socket connect_to(const std::string& host, int port, Deadline deadline) {
  while (Clock::now() < deadline) {
    addrinfo hints{}, *found = nullptr;
    hints.ai_socktype = SOCK_STREAM;
    if (::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) == 0) {
      for (const addrinfo* a = found; a; a = a->ai_next) {
        Socket socket(::socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
        if (socket.fd < 0 || ::connect(socket.fd, a->ai_addr, a->ai_addrlen) != 0) continue;
        ::freeaddrinfo(found);
        quicken(socket);
        return socket;
      }
      ::freeaddrinfo(found);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return {};
}

constexpr int32_t greeting = 0x6c697073;   // whoever else calls at this port is sent away

// Everyone calls rank 0, which gives out the table of places; then each calls those of lower rank.
std::unique_ptr<Messenger> connect(int rank, int size, const std::string& address, int port, double timeout) {
  const Deadline deadline = Clock::now() + std::chrono::milliseconds(int64_t(timeout * 1000));
  std::vector<Socket> peers(size);
  std::vector<Place> places(size);
  const auto nobody = [&](const std::string& whom) {
    fail(Exit::unavailable, "rank ", rank, " of ", size, ": ", whom, " did not come to ", address, ":", port, " in ", timeout, " s (run.comm_timeout)");
  };
  const Socket listener = listen_at(rank == 0 ? port : 0);
  const auto admit = [&](bool notes_place) {
    Place place{};
    Socket socket = accept_at(listener, deadline, notes_place ? &place : nullptr);
    if (socket.fd < 0) return false;
    int32_t words[3];
    if (!transfer_all(socket, true, words, sizeof words, std::min(deadline, Clock::now() + std::chrono::seconds(5))) || words[0] != greeting) return true;
    if (words[1] <= 0 || words[1] >= size || peers[words[1]].fd >= 0) return true;
    place.rank = words[1], place.port = words[2];
    places[words[1]] = place;
    peers[words[1]] = std::move(socket);
    return true;
  };
  const auto call = [&](int peer, const std::string& host, int at) {
    peers[peer] = connect_to(host, at, deadline);
    int32_t words[3] = {greeting, rank, port_of(listener)};
    if (peers[peer].fd < 0 || !transfer_all(peers[peer], false, words, sizeof words, deadline)) nobody(str("rank ", peer));
  };
  const auto absent = [&](int from) {
    std::string ranks;
    for (int r = from; r < size; r++)
      if (peers[r].fd < 0 && r != rank) ranks += str(ranks.empty() ? "rank " : ", ", r);
    return ranks;
  };
  if (rank == 0) {
    while (!absent(1).empty())
      if (!admit(true)) nobody(absent(1));
    for (int r = 1; r < size; r++)
      if (!transfer_all(peers[r], false, places.data(), places.size() * sizeof(Place), deadline)) nobody(str("rank ", r));
  } else {
    call(0, address, port);
    if (!transfer_all(peers[0], true, places.data(), places.size() * sizeof(Place), deadline)) nobody("another rank");
    for (int r = 1; r < rank; r++) call(r, places[r].host, places[r].port);
    while (!absent(rank + 1).empty())
      if (!admit(false)) nobody(absent(rank + 1));
  }
  return std::make_unique<Tcp>(rank, std::move(peers));
}

}  // namespace

std::unique_ptr<Communicator> tcp_communicator(int rank, int size, const std::string& address, int port, double timeout) {
  return std::make_unique<HostCommunicator>(rank, size, timeout, [=] { return connect(rank, size, address, port, timeout); });
}
