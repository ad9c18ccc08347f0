// Applies a gate table (lowering/table.py) to a batch of vectors, tile by tile, forward and backward.
//
// A tile is LINE tokens. Its state is an array of lines, one for every number of the state: a line holds that number
// of all tokens of the tile and is one cache line long. A gate is then a small matrix times lines, and it does not
// matter where a line lies: the table says where each is written so that the next gate reads its columns one after
// the other. The state never leaves the core's second-level cache, and nothing is permuted.
//
// Products are blocked in registers, ROWS rows of the matrix by LINES lines, with the matrix packed to match. A few
// tokens that fill no tile go one by one, the rows of the matrices in the lanes. Backward keeps nothing but the
// input: it computes the states of a tile again, then walks the gates in reverse.
// Sums are in float for float and bfloat16 vectors, in double for double ones.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace {

using std::int32_t;
using std::int64_t;

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64, ROWS = 8, LINES = 3;
#elif defined(__AVX__)
constexpr int VECTOR_BYTES = 32, ROWS = 6, LINES = 1;
#elif defined(__aarch64__)
constexpr int VECTOR_BYTES = 16, ROWS = 6, LINES = 1;
#else
constexpr int VECTOR_BYTES = 16, ROWS = 3, LINES = 1;
#endif
constexpr int LINE_BYTES = 64;
constexpr int PARTS = LINE_BYTES / VECTOR_BYTES;  // vectors in a line

template <class T>
struct Lanes {
  typedef T Vector __attribute__((vector_size(VECTOR_BYTES), may_alias));
  typedef T Loose __attribute__((vector_size(VECTOR_BYTES), may_alias, aligned(sizeof(T))));
  static constexpr int WIDTH = VECTOR_BYTES / sizeof(T);
  static constexpr int LINE = LINE_BYTES / sizeof(T);  // tokens in a tile
};

template <class T>
inline typename Lanes<T>::Vector load(const T* from) {
  return *reinterpret_cast<const typename Lanes<T>::Vector*>(from);
}
template <class T>
inline void store(T* to, typename Lanes<T>::Vector value) {
  *reinterpret_cast<typename Lanes<T>::Vector*>(to) = value;
}
template <class T>
inline typename Lanes<T>::Vector load_loose(const T* from) {
  return *reinterpret_cast<const typename Lanes<T>::Loose*>(from);
}
template <class T>
inline void store_loose(T* to, typename Lanes<T>::Vector value) {
  *reinterpret_cast<typename Lanes<T>::Loose*>(to) = value;
}

// ---- elements of the caller's tensors ----

struct Bfloat16 {
  std::uint16_t bits;
};

inline float widen(float value) { return value; }
inline double widen(double value) { return value; }
inline float widen(Bfloat16 value) {
  const std::uint32_t bits = std::uint32_t(value.bits) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof wide);
  return wide;
}

// To nearest, ties to even, in one number or many; a NaN stays one.
template <class Bits>
inline Bits rounded_to_upper_half(Bits bits, Bits is_nan) {
  const Bits nearest = bits + 0x7fffu + ((bits >> 16) & 1u), quiet = bits | 0x400000u;
  return ((quiet & is_nan) | (nearest & ~is_nan)) >> 16;
}
inline void narrow(float value, float& to) { to = value; }
inline void narrow(double value, double& to) { to = value; }
inline void narrow(float value, Bfloat16& to) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  to.bits = std::uint16_t(rounded_to_upper_half(bits, value == value ? 0u : ~0u));
}

// ---- squares of WIDTH x WIDTH numbers, turned over in registers ----

#if (defined(__clang__) || __GNUC__ >= 12) && !defined(QUANTA_NO_SHUFFLES)
template <class V, int D, bool UPPER, int... I>
inline V mixed(V a, V b, std::integer_sequence<int, I...>) {
  constexpr int N = sizeof...(I);
  // Lanes are exchanged with the row D away where the lane number has the bit D.
  return __builtin_shufflevector(a, b, (UPPER ? ((I & D) ? I + N : I + D) : ((I & D) ? I + N - D : I))...);
}
template <class T, int D>
inline void turn_step(typename Lanes<T>::Vector* rows) {
  constexpr int N = Lanes<T>::WIDTH;
  using V = typename Lanes<T>::Vector;
  using Order = std::make_integer_sequence<int, N>;
#pragma GCC unroll 16
  for (int i = 0; i < N; i++) {
    if (i & D) continue;
    V a = rows[i], b = rows[i + D];
    rows[i] = mixed<V, D, false>(a, b, Order{});
    rows[i + D] = mixed<V, D, true>(a, b, Order{});
  }
}
template <class T>
inline void turn(typename Lanes<T>::Vector* rows) {
  constexpr int N = Lanes<T>::WIDTH;
  turn_step<T, 1>(rows);
  if constexpr (N > 2) turn_step<T, 2>(rows);
  if constexpr (N > 4) turn_step<T, 4>(rows);
  if constexpr (N > 8) turn_step<T, 8>(rows);
}
#else
template <class T>
inline void turn(typename Lanes<T>::Vector* rows) {
  constexpr int N = Lanes<T>::WIDTH;
  T square[N][N];
  for (int i = 0; i < N; i++)
    for (int j = 0; j < N; j++) square[j][i] = rows[i][j];
  for (int i = 0; i < N; i++) rows[i] = load_loose(square[i]);
}
#endif

// ---- products ----

// y[row_places[i] + line_places[v]] = sum over j of packed[j * R + i] * x[v * stride + j], all of lines.
template <class T, int R, int V>
void multiply(const T* x, int64_t stride, const T* packed, int columns, T* y, const int32_t* row_places,
              const int32_t* line_places) {
  using Vector = typename Lanes<T>::Vector;
  constexpr int LINE = Lanes<T>::LINE, WIDTH = Lanes<T>::WIDTH;
  Vector sums[R][V][PARTS] = {};
  for (int j = 0; j < columns; j++) {
    Vector lines[V][PARTS];
#pragma GCC unroll 16
    for (int v = 0; v < V; v++)
#pragma GCC unroll 16
      for (int p = 0; p < PARTS; p++) lines[v][p] = load(x + v * stride + j * LINE + p * WIDTH);
#pragma GCC unroll 16
    for (int i = 0; i < R; i++) {
      T factor = packed[j * R + i];
#pragma GCC unroll 16
      for (int v = 0; v < V; v++)
#pragma GCC unroll 16
        for (int p = 0; p < PARTS; p++) sums[i][v][p] += factor * lines[v][p];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < R; i++)
#pragma GCC unroll 16
    for (int v = 0; v < V; v++)
#pragma GCC unroll 16
      for (int p = 0; p < PARTS; p++)
        store(y + (int64_t(row_places[i]) + line_places[v]) * LINE + p * WIDTH, sums[i][v][p]);
}

template <class T>
using Multiply = void (*)(const T*, int64_t, const T*, int, T*, const int32_t*, const int32_t*);

template <class T, int... K>
Multiply<T> choose_multiply(int rows, int lines, std::integer_sequence<int, K...>) {
  static constexpr Multiply<T> all[] = {multiply<T, K / LINES + 1, K % LINES + 1>...};
  return all[(rows - 1) * LINES + lines - 1];
}
template <class T>
Multiply<T> choose_multiply(int rows, int lines) {
  return choose_multiply<T>(rows, lines, std::make_integer_sequence<int, ROWS * LINES>{});
}

// sums[i * stride + lanes of panel v] += sum over (s, t) of dy[(s * rows + i) * LINE + t] * turned[(s * LINE + t) * V + v],
// where s counts lines of `count` and t the tokens of a line; `turned` is in vectors.
template <class T, int R, int V>
void accumulate(const T* dy, int64_t dy_stride, const T* turned, int count, T* sums, int64_t stride) {
  using Vector = typename Lanes<T>::Vector;
  constexpr int LINE = Lanes<T>::LINE, WIDTH = Lanes<T>::WIDTH;
  Vector found[R][V] = {};
  for (int s = 0; s < count; s++) {
    const T* lines = dy + s * dy_stride;
    for (int t = 0; t < LINE; t++) {
      Vector right[V];
#pragma GCC unroll 16
      for (int v = 0; v < V; v++) right[v] = load(turned + v * WIDTH);
      turned += V * WIDTH;
#pragma GCC unroll 16
      for (int i = 0; i < R; i++) {
        T factor = lines[i * LINE + t];
#pragma GCC unroll 16
        for (int v = 0; v < V; v++) found[i][v] += factor * right[v];
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < R; i++)
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) {
      T* place = sums + i * stride + v * WIDTH;
      store(place, load(place) + found[i][v]);
    }
}

template <class T>
using Accumulate = void (*)(const T*, int64_t, const T*, int, T*, int64_t);

constexpr int PANEL = PARTS == 1 ? LINES : 2;  // vectors of columns that a gradient is accumulated for at a time

template <class T, int... K>
Accumulate<T> choose_accumulate(int rows, int vectors, std::integer_sequence<int, K...>) {
  static constexpr Accumulate<T> all[] = {accumulate<T, K / PANEL + 1, K % PANEL + 1>...};
  return all[(rows - 1) * PANEL + vectors - 1];
}
template <class T>
Accumulate<T> choose_accumulate(int rows, int vectors) {
  return choose_accumulate<T>(rows, vectors, std::make_integer_sequence<int, ROWS * PANEL>{});
}

// ---- the table ----

}  // namespace

extern "C" {

struct Gate {
  int32_t has_matrix, blocks, rest, rows, columns;
  const int32_t *write_rest, *write_row, *grad_rest, *grad_column;
};

struct Circuit {
  int32_t in_features, out_features, in_size, out_size, gates;
  const int32_t *read, *read_grad;
  const Gate* gate;
};

}  // extern "C"

namespace {

int64_t lines_read(const Gate& gate) { return int64_t(gate.blocks) * gate.rest * gate.columns; }
int64_t lines_made(const Gate& gate) { return int64_t(gate.blocks) * gate.rest * gate.rows; }
int64_t matrix_numbers(const Gate& gate) {
  return gate.has_matrix ? int64_t(gate.blocks) * gate.rows * gate.columns : 0;
}

// Rounds up to whole vectors.
template <class T>
int64_t padded(int numbers) {
  constexpr int WIDTH = Lanes<T>::WIDTH;
  return int64_t(numbers + WIDTH - 1) / WIDTH * WIDTH;
}

// [blocks, rows, columns] -> per block and ROWS rows [columns, rows]; `transposed` packs the transposed matrices.
template <class T>
void pack(const Gate& gate, const T* matrix, T* packed, bool transposed) {
  const int rows = transposed ? gate.columns : gate.rows, columns = transposed ? gate.rows : gate.columns;
  const int64_t row_step = transposed ? 1 : gate.columns, column_step = transposed ? gate.columns : 1;
  for (int b = 0; b < gate.blocks; b++, matrix += int64_t(rows) * columns)
    for (int first = 0; first < rows; first += ROWS) {
      const int count = rows - first < ROWS ? rows - first : ROWS;
      for (int j = 0; j < columns; j++)
        for (int i = 0; i < count; i++) *packed++ = matrix[(first + i) * row_step + j * column_step];
    }
}

// One gate on one tile: lines x -> lines y.
template <class T>
void apply(const T* packed, const T* x, T* y, int blocks, int rest, int rows, int columns, const int32_t* rest_places,
           const int32_t* row_places) {
  constexpr int LINE = Lanes<T>::LINE;
  const int64_t stride = int64_t(columns) * LINE;
  for (int b = 0; b < blocks; b++, packed += int64_t(rows) * columns)
    for (int s = 0; s < rest;) {
      // Four lines are better split in two and two than in three and one.
      const int left = rest - s;
      const int lines = left == LINES + 1 && LINES > 2 ? 2 : left < LINES ? left : LINES;
      for (int i = 0; i < rows; i += ROWS) {
        const int count = rows - i < ROWS ? rows - i : ROWS;
        choose_multiply<T>(count, lines)(x, stride, packed + int64_t(i) * columns, columns, y, row_places + i,
                                         rest_places);
      }
      s += lines, rest_places += lines, x += lines * stride;
    }
}

template <class T>
void move(const Gate& gate, const T* x, T* y, bool backward) {
  constexpr int LINE = Lanes<T>::LINE;
  const int from = backward ? gate.rows : gate.columns, to = backward ? gate.columns : gate.rows;
  const int32_t* rest_places = backward ? gate.grad_rest : gate.write_rest;
  const int32_t* places = backward ? gate.grad_column : gate.write_row;
  for (int64_t s = 0; s < int64_t(gate.blocks) * gate.rest; s++)
    for (int i = 0; i < to; i++) {
      T* line = y + (int64_t(rest_places[s]) + places[i]) * LINE;
      if (i < from)
        std::memcpy(line, x + (s * from + i) * LINE, LINE_BYTES);
      else
        std::memset(line, 0, LINE_BYTES);
    }
}

// ---- tokens in rows <-> lines ----

typedef std::uint16_t Halves __attribute__((vector_size(VECTOR_BYTES / 2)));
typedef std::uint32_t Words __attribute__((vector_size(VECTOR_BYTES)));

template <class T>
inline typename Lanes<T>::Vector load_wide(const T* from) {
  return load_loose(from);
}
template <class T>
inline Lanes<float>::Vector load_wide(const Bfloat16* from) {
  Halves halves;
  std::memcpy(&halves, from, sizeof halves);
  const Words bits = __builtin_convertvector(halves, Words) << 16;
  Lanes<float>::Vector wide;
  std::memcpy(&wide, &bits, sizeof wide);
  return wide;
}
template <class T>
inline void store_narrow(T* to, typename Lanes<T>::Vector value) {
  store_loose(to, value);
}
template <class T>
inline void store_narrow(Bfloat16* to, Lanes<float>::Vector value) {
  Words bits, is_nan;
  std::memcpy(&bits, &value, sizeof bits);
  const auto unordered = value != value;
  std::memcpy(&is_nan, &unordered, sizeof is_nan);
  const Halves halves = __builtin_convertvector(rounded_to_upper_half(bits, is_nan), Halves);
  std::memcpy(to, &halves, sizeof halves);
}

// x [tokens, features] -> lines[places[f]]; features past those of x, and tokens past those of the tile, are zeros.
template <class T, class E>
void enter(const E* x, int64_t width, int features, int size, int tokens, const int32_t* places, T* lines) {
  constexpr int LINE = Lanes<T>::LINE, WIDTH = Lanes<T>::WIDTH;
  int f = 0;
  if (tokens == LINE)
    for (; f + WIDTH <= features && f + WIDTH <= size; f += WIDTH)
      for (int p = 0; p < PARTS; p++) {
        typename Lanes<T>::Vector rows[WIDTH];
#pragma GCC unroll 16
        for (int t = 0; t < WIDTH; t++) rows[t] = load_wide<T>(x + (p * WIDTH + t) * width + f);
        turn<T>(rows);
#pragma GCC unroll 16
        for (int i = 0; i < WIDTH; i++) store(lines + int64_t(places[f + i]) * LINE + p * WIDTH, rows[i]);
      }
  for (; f < size; f++) {
    T* line = lines + int64_t(places[f]) * LINE;
    for (int t = 0; t < LINE; t++) line[t] = f < features && t < tokens ? widen(x[t * width + f]) : 0;
  }
}

// The first lines of a state -> y [tokens, features]; features past those of the state are zeros.
template <class T, class E>
void leave(const T* lines, int size, E* y, int64_t width, int features, int tokens) {
  constexpr int LINE = Lanes<T>::LINE, WIDTH = Lanes<T>::WIDTH;
  int f = 0;
  if (tokens == LINE)
    for (; f + WIDTH <= features && f + WIDTH <= size; f += WIDTH)
      for (int p = 0; p < PARTS; p++) {
        typename Lanes<T>::Vector rows[WIDTH];
#pragma GCC unroll 16
        for (int i = 0; i < WIDTH; i++) rows[i] = load(lines + int64_t(f + i) * LINE + p * WIDTH);
        turn<T>(rows);
#pragma GCC unroll 16
        for (int t = 0; t < WIDTH; t++) store_narrow<T>(y + (p * WIDTH + t) * width + f, rows[t]);
      }
  for (; f < features; f++)
    for (int t = 0; t < tokens; t++) narrow(f < size ? lines[int64_t(f) * LINE + t] : T(0), y[t * width + f]);
}

// ---- gradients of matrices ----

constexpr int DEPTH = 8;  // lines turned over at a time: their panel stays in the first-level cache

// sums [blocks, rows, padded columns] += the product of dy [blocks, rest, rows] and x [blocks, rest, columns] over rest
// and tokens, for matrices of so few columns that most lanes of a panel would be padding.
template <class T>
void accumulate_few(const Gate& gate, const T* dy, const T* x, T* sums) {
  constexpr int LINE = Lanes<T>::LINE, WIDTH = Lanes<T>::WIDTH;
  const int rows = gate.rows, columns = gate.columns, rest = gate.rest;
  for (int b = 0; b < gate.blocks; b++) {
    for (int i = 0; i < rows; i++, sums += padded<T>(columns))
      for (int j = 0; j < columns; j++) {
        typename Lanes<T>::Vector found = {};
        for (int s = 0; s < rest; s++)
          for (int p = 0; p < LINE; p += WIDTH)
            found += load(dy + (int64_t(s) * rows + i) * LINE + p) * load(x + (int64_t(s) * columns + j) * LINE + p);
        for (int l = 0; l < WIDTH; l++) sums[j] += found[l];
      }
    x += int64_t(rest) * columns * LINE, dy += int64_t(rest) * rows * LINE;
  }
}

// The same for all others.
template <class T>
void accumulate_gradient(const Gate& gate, const T* dy, const T* x, T* sums, T* turned) {
  constexpr int LINE = Lanes<T>::LINE, WIDTH = Lanes<T>::WIDTH;
  const int rows = gate.rows, columns = gate.columns, rest = gate.rest;
  const int64_t wide = padded<T>(columns);
  if (columns <= WIDTH / 4) return accumulate_few(gate, dy, x, sums);
  for (int b = 0; b < gate.blocks; b++, sums += rows * wide)
    for (int s = 0; s < rest; s += DEPTH) {
      const int count = rest - s < DEPTH ? rest - s : DEPTH;
      for (int64_t j = 0; j < wide; j += PANEL * WIDTH) {
        const int vectors = wide - j < PANEL * WIDTH ? (wide - j) / WIDTH : PANEL;
        for (int line = 0; line < count; line++)
          for (int v = 0; v < vectors; v++)
            for (int p = 0; p < PARTS; p++) {
              typename Lanes<T>::Vector square[WIDTH];
              const T* from = x + (int64_t(line) * columns + j + v * WIDTH) * LINE + p * WIDTH;
              const int have = columns - (j + v * WIDTH);
#pragma GCC unroll 16
              for (int i = 0; i < WIDTH; i++)
                square[i] = i < have ? load(from + i * LINE) : typename Lanes<T>::Vector{};
              turn<T>(square);
#pragma GCC unroll 16
              for (int t = 0; t < WIDTH; t++)
                store(turned + ((int64_t(line) * LINE + p * WIDTH + t) * vectors + v) * WIDTH, square[t]);
            }
        for (int i = 0; i < rows; i += ROWS) {
          const int some = rows - i < ROWS ? rows - i : ROWS;
          choose_accumulate<T>(some, vectors)(dy + int64_t(i) * LINE, int64_t(rows) * LINE, turned, count,
                                              sums + i * wide + j, wide);
        }
      }
      x += int64_t(count) * columns * LINE, dy += int64_t(count) * rows * LINE;
    }
}

// ---- one token ----

// A state of one token is kept as its maker writes it, (blocks, rest, rows), as gradients are in a tile; so it is the
// places of gradients that are read here. A gate takes single numbers, wherever they are, and has the rows of its matrix
// in the lanes.

constexpr int AT_ONCE = VECTOR_BYTES == 32 ? 4 : 8;  // vectors that one load of the matrix serves

// y[v * rows + lanes of p] = sum over j of turned[j * 2 vectors + lanes of p] * x[line_places[v] + column_places[j]].
template <class T, int P>
void multiply_one(const T* turned, int columns, const T* x, const int32_t* line_places, int lines,
                  const int32_t* column_places, T* y, int rows, int have) {
  using Vector = typename Lanes<T>::Vector;
  constexpr int WIDTH = Lanes<T>::WIDTH;
  const T* from[AT_ONCE];
  // What is missing repeats the last, and is not written.
  for (int v = 0; v < AT_ONCE; v++) from[v] = x + line_places[std::min(v, lines - 1)];
  Vector sums[P][AT_ONCE] = {};
  for (int j = 0; j < columns; j++, turned += 2 * WIDTH) {
    const int64_t place = column_places[j];
    Vector matrix[P];
#pragma GCC unroll 16
    for (int p = 0; p < P; p++) matrix[p] = load(turned + p * WIDTH);
#pragma GCC unroll 16
    for (int v = 0; v < AT_ONCE; v++) {
      T factor = from[v][place];
#pragma GCC unroll 16
      for (int p = 0; p < P; p++) sums[p][v] += factor * matrix[p];
    }
  }
  for (int v = 0; v < lines && v < AT_ONCE; v++)
    for (int p = 0; p < P; p++) {
      T* to = y + int64_t(v) * rows + p * WIDTH;
      if (have >= (p + 1) * WIDTH) {
        store_loose(to, sums[p][v]);
      } else {
        alignas(64) T lanes[WIDTH];
        store(lanes, sums[p][v]);
        for (int l = 0; p * WIDTH + l < have; l++) to[l] = lanes[l];
      }
    }
}

// Up to two vectors of rows of a matrix -> [columns, two vectors], padded with anything.
template <class T>
void turn_matrix(const T* matrix, int rows, int columns, T* turned) {
  constexpr int WIDTH = Lanes<T>::WIDTH, stride = 2 * WIDTH;
  for (int i = 0; i < rows; i += WIDTH) {
    int j = 0;
    for (; j + WIDTH <= columns; j += WIDTH) {
      typename Lanes<T>::Vector square[WIDTH];
#pragma GCC unroll 16
      for (int r = 0; r < WIDTH; r++) square[r] = load_loose(matrix + int64_t(std::min(i + r, rows - 1)) * columns + j);
      turn<T>(square);
#pragma GCC unroll 16
      for (int r = 0; r < WIDTH; r++) store(turned + (j + r) * stride + i, square[r]);
    }
    for (; j < columns; j++)
      for (int r = 0; r < WIDTH; r++) turned[j * stride + i + r] = matrix[int64_t(std::min(i + r, rows - 1)) * columns + j];
  }
}

template <class T>
void step_one(const Gate& gate, const T* matrix, const T* x, T* y, T* scratch) {
  constexpr int WIDTH = Lanes<T>::WIDTH;
  const int rows = gate.rows, columns = gate.columns;
  const int32_t* places = gate.grad_rest;
  for (int b = 0; b < gate.blocks; b++, places += gate.rest, y += int64_t(gate.rest) * rows) {
    if (!gate.has_matrix) {
      for (int s = 0; s < gate.rest; s++)
        for (int i = 0; i < rows; i++)
          y[int64_t(s) * rows + i] = i < columns ? x[int64_t(places[s]) + gate.grad_column[i]] : T(0);
      continue;
    }
    for (int i = 0; i < rows; i += 2 * WIDTH) {
      const int have = std::min(rows - i, 2 * WIDTH);
      const auto multiply = have > WIDTH ? multiply_one<T, 2> : multiply_one<T, 1>;
      turn_matrix(matrix + int64_t(i) * columns, have, columns, scratch);
      for (int s = 0; s < gate.rest; s += AT_ONCE)
        multiply(scratch, columns, x, places + s, gate.rest - s, gate.grad_column, y + int64_t(s) * rows + i, rows, have);
    }
    matrix += int64_t(rows) * columns;
  }
}

template <class T, class E>
void forward_one(const Circuit& circuit, const E* x, const T* const* matrices, E* y, T* now, T* next, T* scratch) {
  for (int f = 0; f < circuit.in_size; f++) now[f] = f < circuit.in_features ? widen(x[f]) : T(0);
  for (int g = 0; g < circuit.gates; g++) {
    step_one(circuit.gate[g], matrices[g], now, next, scratch);
    std::swap(now, next);
  }
  for (int f = 0; f < circuit.out_features; f++) narrow(f < circuit.out_size ? now[circuit.read_grad[f]] : T(0), y[f]);
}

// ---- memory ----

constexpr int64_t KEPT_BYTES = int64_t(1) << 26;  // states of a tile that backward keeps at once, where it has a choice
constexpr int64_t FRESH_BYTES = int64_t(1) << 25;  // from here on malloc never keeps memory for the next call
constexpr int FEW = 8;  // at most so many tokens go one by one: a tile costs as much as some ten of them

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<char, Free>;

Memory reserve(int64_t bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 4096, bytes > 0 ? bytes : 64) != 0) throw std::bad_alloc();
  return Memory(static_cast<char*>(memory));
}

// Asks for large pages under a result that is so large that every call gets it anew from the system: to be given it in
// small ones takes a fifth of the time of a forward pass.
inline void expect_writes(void* result, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr std::uintptr_t PAGE = std::uintptr_t(1) << 21;
  const std::uintptr_t begin = (reinterpret_cast<std::uintptr_t>(result) + PAGE - 1) / PAGE * PAGE;
  const std::uintptr_t end = (reinterpret_cast<std::uintptr_t>(result) + bytes) / PAGE * PAGE;
  if (result && bytes >= FRESH_BYTES && end > begin)
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // refused or not, it works
#else
  (void)result, (void)bytes;
#endif
}

// Memory for each of so many threads, fewer where there is not enough.
template <class T>
struct Workspace {
  Workspace(int64_t numbers, int wanted) : numbers((numbers + 1023) / 1024 * 1024), threads(wanted) {
    for (;; threads = (threads + 1) / 2) try {
        memory = reserve(this->numbers * threads * sizeof(T));
        return;
      } catch (const std::bad_alloc&) {
        if (threads == 1) throw;
      }
  }
  T* of(int thread) const { return reinterpret_cast<T*>(memory.get()) + thread * numbers; }
  T* own() const {
#ifdef _OPENMP
    return of(omp_get_thread_num());
#else
    return of(0);
#endif
  }
  int64_t numbers;
  int threads;
  Memory memory;
};

// Numbers in the largest state of one token.
int64_t largest_state(const Circuit& circuit) {
  int64_t largest = std::max(circuit.in_size, circuit.out_size);
  for (int g = 0; g < circuit.gates; g++)
    largest = std::max({largest, lines_read(circuit.gate[g]), lines_made(circuit.gate[g])});
  return largest;
}

// Packed matrices of all gates, and where each begins.
template <class T>
struct Packs {
  Packs(const Circuit& circuit, const T* const* matrices, bool transposed) : begins(circuit.gates) {
    int64_t numbers = 0;
    for (int g = 0; g < circuit.gates; g++) begins[g] = numbers, numbers += matrix_numbers(circuit.gate[g]);
    memory = reserve(numbers * sizeof(T));
    for (int g = 0; g < circuit.gates; g++)
      if (circuit.gate[g].has_matrix)
        pack(circuit.gate[g], matrices[g], reinterpret_cast<T*>(memory.get()) + begins[g], transposed);
  }
  const T* of(int g) const { return reinterpret_cast<const T*>(memory.get()) + begins[g]; }
  std::vector<int64_t> begins;
  Memory memory;
};

// Where backward keeps the state that each gate reads. Where all of them are too many, only the first of every segment
// is kept, and a segment's own states are computed once more when its turn comes.
template <class T>
struct Kept {
  Kept(const Circuit& circuit, int64_t most_bytes) : begins(circuit.gates) {
    const int gates = circuit.gates;
    int64_t all = 0;
    for (int g = 0; g < gates; g++) all += lines_read(circuit.gate[g]) * Lanes<T>::LINE;
    if (all * int64_t(sizeof(T)) <= most_bytes)
      length = gates;
    else
      while (int64_t(length) * length < gates) length++;
    for (int g = 0; g < gates; g += length) begins[g] = numbers, numbers += lines_read(circuit.gate[g]) * Lanes<T>::LINE;
    int64_t longest = 0;
    for (int first = 0; first < gates; first += length) {
      int64_t own = 0;
      for (int g = first + 1; g < std::min(gates, first + length); g++)
        begins[g] = numbers + own, own += lines_read(circuit.gate[g]) * Lanes<T>::LINE;
      longest = std::max(longest, own);
    }
    numbers += longest;
  }
  int length = 1;  // gates in a segment
  int64_t numbers = 0;
  std::vector<int64_t> begins;
};

// ---- the batch ----

template <class T>
void step(const Gate& gate, const T* packed, const T* x, T* y) {
  if (gate.has_matrix)
    apply(packed, x, y, gate.blocks, gate.rest, gate.rows, gate.columns, gate.write_rest, gate.write_row);
  else
    move(gate, x, y, false);
}

template <class T>
void step_back(const Gate& gate, const T* packed, const T* dy, T* dx) {
  if (gate.has_matrix)
    apply(packed, dy, dx, gate.blocks, gate.rest, gate.columns, gate.rows, gate.grad_rest, gate.grad_column);
  else
    move(gate, dy, dx, true);
}

template <class T, class E>
void forward(const Circuit& circuit, const E* x, int64_t tokens, const T* const* matrices, E* y, int threads,
             bool one_by_one) {
  constexpr int LINE = Lanes<T>::LINE;
  const int64_t left = tokens % LINE, few = one_by_one ? tokens : left <= FEW ? left : 0;
  const int64_t tiles = (tokens - few + LINE - 1) / LINE;
  // Memory that a single token does not need would cost it more than the multiplying: it would come from the system.
  const int64_t state = tiles ? largest_state(circuit) * LINE : padded<T>(int(largest_state(circuit)));
  const int64_t width = circuit.in_features, out_width = circuit.out_features;
  expect_writes(y, tokens * out_width * sizeof(E));
  const Packs<T> packs(tiles ? circuit : Circuit{}, matrices, false);
  int64_t scratch = 0;
  for (int g = 0; few && g < circuit.gates; g++)
    scratch = std::max<int64_t>(scratch, circuit.gate[g].columns * 2 * Lanes<T>::WIDTH);
  const Workspace<T> workspace(2 * state + scratch, int(std::max<int64_t>(1, std::min<int64_t>(threads, tiles + few))));
#pragma omp parallel num_threads(workspace.threads) if (workspace.threads > 1)
  {
    T* const lines = workspace.own();
#pragma omp for schedule(dynamic)
    for (int64_t job = 0; job < tiles + few; job++) {
      if (job >= tiles) {
        const int64_t token = tiles * LINE + job - tiles;
        forward_one(circuit, x + token * width, matrices, y + token * out_width, lines, lines + state, lines + 2 * state);
        continue;
      }
      const int64_t token = job * LINE;
      const int count = int(std::min<int64_t>(tokens - token, LINE));
      T *now = lines, *next = lines + state;
      enter(x + token * width, width, circuit.in_features, circuit.in_size, count, circuit.read, now);
      for (int g = 0; g < circuit.gates; g++) {
        step(circuit.gate[g], packs.of(g), now, next);
        std::swap(now, next);
      }
      leave(now, circuit.out_size, y + token * out_width, out_width, circuit.out_features, count);
    }
  }
}

// What one call of backward has, and every thread of it reads.
template <class T, class E>
struct Backward {
  const Circuit& circuit;
  const E *x, *dy;
  int64_t tokens;
  E* dx;
  T* const* gradients;
  int needed;  // the first gate whose gradient is wanted; the number of gates where none is
  Kept<T> kept;
  Packs<T> packs, turned_packs;
  int64_t state, panel, sums;

  Backward(const Circuit& circuit, const E* x, const E* dy, int64_t tokens, const T* const* matrices, E* dx,
           T* const* gradients, int64_t kept_bytes)
      : circuit(circuit), x(x), dy(dy), tokens(tokens), dx(dx), gradients(gradients), needed(circuit.gates),
        kept(circuit, kept_bytes), packs(circuit, matrices, false), turned_packs(circuit, matrices, true),
        state(largest_state(circuit) * Lanes<T>::LINE), panel(DEPTH * Lanes<T>::LINE * PANEL * Lanes<T>::WIDTH), sums(0) {
    for (int g = circuit.gates - 1; g >= 0; g--)
      if (gradients[g]) needed = g, sums += sum_numbers(circuit.gate[g]);
  }
  static int64_t sum_numbers(const Gate& gate) { return int64_t(gate.blocks) * gate.rows * padded<T>(gate.columns); }
  int64_t numbers() const { return sums + 2 * state + panel + (needed < circuit.gates ? kept.numbers : 0); }

  // Computes the states that the gates of [first, last] read from that of the first.
  void recompute(int first, int last, T* states) const {
    for (int g = first; g < last; g++)
      step(circuit.gate[g], packs.of(g), states + kept.begins[g], states + kept.begins[g + 1]);
  }

  void tile(int64_t token, T* memory) const {
    constexpr int LINE = Lanes<T>::LINE;
    const int count = int(std::min<int64_t>(tokens - token, LINE)), gates = circuit.gates;
    T *grad = memory + sums, *next_grad = grad + state, *const turned = next_grad + state, *const states = turned + panel;
    if (needed < gates) {
      enter(x + token * circuit.in_features, circuit.in_features, circuit.in_features, circuit.in_size, count,
            circuit.read, states);
      // The last segment's own states come with its turn; those before it are passed through.
      for (int first = 0; first + kept.length < gates; first += kept.length)
        recompute(first, first + kept.length, states);
    }
    enter(dy + token * circuit.out_features, circuit.out_features, circuit.out_features, circuit.out_size, count,
          circuit.read_grad, grad);
    T* sum = memory + sums;
    for (int g = gates - 1; g >= (dx ? 0 : needed); g--) {
      const Gate& gate = circuit.gate[g];
      const int first = g - g % kept.length;
      if (g >= needed && (g == gates - 1 || g == first + kept.length - 1)) recompute(first, g, states);
      if (gradients[g]) accumulate_gradient(gate, grad, states + kept.begins[g], sum -= sum_numbers(gate), turned);
      if (g > 0 || dx) {
        step_back(gate, turned_packs.of(g), grad, next_grad);
        std::swap(grad, next_grad);
      }
    }
    if (dx) leave(grad, circuit.in_size, dx + token * circuit.in_features, circuit.in_features, circuit.in_features, count);
  }

  // Adds up the sums of all threads, always in the same order; all threads share in it.
  void add_up(const Workspace<T>& workspace) const {
    int64_t begin = 0;
    for (int g = 0; g < circuit.gates; g++) {
      if (!gradients[g]) continue;
      const Gate& gate = circuit.gate[g];
      const int64_t wide = padded<T>(gate.columns);
#pragma omp for schedule(static)
      for (int64_t row = 0; row < int64_t(gate.blocks) * gate.rows; row++)
        for (int j = 0; j < gate.columns; j++) {
          T sum = 0;
          for (int thread = 0; thread < workspace.threads; thread++)
            sum += workspace.of(thread)[begin + row * wide + j];
          gradients[g][row * gate.columns + j] = sum;
        }
      begin += sum_numbers(gate);
    }
  }

  void run(int threads) const {
    constexpr int LINE = Lanes<T>::LINE;
    const int64_t tiles = (tokens + LINE - 1) / LINE;
    const Workspace<T> workspace(numbers(), int(std::max<int64_t>(1, std::min<int64_t>(threads, tiles))));
    expect_writes(dx, tokens * circuit.in_features * sizeof(E));
    // Cleared here, whoever comes: with fewer threads than asked for some have nothing to add.
    for (int thread = 0; thread < workspace.threads; thread++) std::fill_n(workspace.of(thread), sums, T(0));
#pragma omp parallel num_threads(workspace.threads) if (workspace.threads > 1)
    {
      T* const memory = workspace.own();
      // Static: which tiles are summed together decides how the sums are rounded.
#pragma omp for schedule(static)
      for (int64_t job = 0; job < tiles; job++) tile(job * LINE, memory);
      add_up(workspace);
    }
  }
};

template <class T, class E>
void backward(const Circuit& circuit, const void* x, const void* dy, int64_t tokens, const void* const* matrices,
              void* dx, void* const* gradients, int threads) {
  const auto run = [&](int64_t kept_bytes) {
    Backward<T, E>(circuit, static_cast<const E*>(x), static_cast<const E*>(dy), tokens,
                   reinterpret_cast<const T* const*>(matrices), static_cast<E*>(dx),
                   reinterpret_cast<T* const*>(gradients), kept_bytes)
        .run(threads);
  };
  try {
    run(KEPT_BYTES);
  } catch (const std::bad_alloc&) {
    run(0);  // in segments, which keep as few states as can be
  }
}

template <class T, class E>
void forward(const Circuit& circuit, const void* x, int64_t tokens, const void* const* matrices, void* y, int threads) {
  const auto run = [&](bool one_by_one) {
    forward(circuit, static_cast<const E*>(x), tokens, reinterpret_cast<const T* const*>(matrices), static_cast<E*>(y),
            threads, one_by_one);
  };
  try {
    run(false);
  } catch (const std::bad_alloc&) {
    run(true);  // a token takes a small part of a tile's memory
  }
}

enum Kind { FLOAT, BFLOAT16, DOUBLE };  // of the vectors; matrices are float beside bfloat16 ones

}  // namespace

// ---- turnings: the first columns of an orthogonal matrix that is a sequence of rotations (lowering/turnings.py) ----

extern "C" {

// TURN: numbers `stride` apart among `count` from `place` on, all by one angle. PAIRS: each of `count` numbers from
// `place` on with one from `other` on, by an angle of its own. SIGN: minus, where the bits `stride` and `other` are set.
struct Turning {
  int32_t kind, angle, place, count, stride, other;
};

}  // extern "C"

namespace {

enum TurningKind { TURN, PAIRS, SIGN };

template <class T>
inline void rotate(T* a, T* b, int64_t numbers, T cos, T sin) {
  for (int64_t j = 0; j < numbers; j++) {
    const T first = a[j], second = b[j];
    a[j] = cos * first - sin * second;
    b[j] = sin * first + cos * second;
  }
}

// The derivative by the angle of what a rotation has made, times twice the gradient.
template <class T>
inline T slope(const T* a, const T* b, const T* da, const T* db, int64_t numbers) {
  constexpr int LANES = 16;
  T sums[LANES] = {}, sum = 0;
  int64_t j = 0;
  for (; j + LANES <= numbers; j += LANES)
    for (int lane = 0; lane < LANES; lane++) sums[lane] += db[j + lane] * a[j + lane] - da[j + lane] * b[j + lane];
  for (; j < numbers; j++) sum += db[j] * a[j] - da[j] * b[j];
  for (T one : sums) sum += one;
  return sum;
}

// Carries out one on vectors [numbers, columns], which backwards undoes it. With a gradient of them, that of what has
// been before is left there, and that of the angles added up: the vectors are found again by turning back.
template <class T>
void turn(const Turning& one, const T* angles, bool back, int64_t columns, T* x, T* grad, T* angle_grads) {
  if (one.kind == SIGN) {
    for (int64_t i = 0; i < one.count; i++)
      if (i & one.stride && i & one.other)
        for (T* vectors : {x, grad})
          for (int64_t j = 0; vectors && j < columns; j++) {
            T& number = vectors[(one.place + i) * columns + j];
            number = -number;
          }
    return;
  }
  const auto pair = [&](int64_t a, int64_t b, int64_t lines, int64_t angle) {
    const T half = angles[angle] / 2, cos = std::cos(half), sin = back ? -std::sin(half) : std::sin(half);
    const int64_t numbers = lines * columns;
    a *= columns, b *= columns;
    // Undone are the rotations of forward or of its transpose, whose angles have the other sign.
    if (grad) {
      const T sum = slope(x + a, x + b, grad + a, grad + b, numbers) / 2;
      angle_grads[angle] += back ? sum : -sum;
      rotate(grad + a, grad + b, numbers, cos, sin);
    }
    rotate(x + a, x + b, numbers, cos, sin);
  };
  if (one.kind == PAIRS)
    for (int64_t i = 0; i < one.count; i++) pair(one.place + i, one.other + i, 1, one.angle + i);
  else
    for (int64_t i = 0; i < one.count; i += 2 * one.stride)
      pair(one.place + i, one.place + i + one.stride, one.stride, one.angle);
}

// Carries out a sequence on the first unit vectors, or its transpose: in reverse, every angle with the other sign.
template <class T>
void turn_all(const Turning* turnings, int count, bool transposed, const T* angles, int64_t numbers, int64_t columns,
              T* y) {
  std::fill_n(y, numbers * columns, T(0));
  for (int64_t j = 0; j < columns; j++) y[j * columns + j] = 1;
  for (int t = 0; t < count; t++)
    turn<T>(turnings[transposed ? count - 1 - t : t], angles, transposed, columns, y, nullptr, nullptr);
}

// From what `turn_all` has made, and its gradient: both are overwritten.
template <class T>
void turn_back(const Turning* turnings, int count, bool transposed, const T* angles, int64_t columns, T* y, T* grad,
               T* angle_grads) {
  for (int t = 0; t < count; t++)
    turn<T>(turnings[transposed ? t : count - 1 - t], angles, !transposed, columns, y, grad, angle_grads);
}

template <class T>
void turnings(const Turning* turnings, int count, bool transposed, const void* angles, int64_t stack, int64_t angle_count,
              int64_t numbers, int64_t columns, void* y, void* grad, void* angle_grads, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1 && stack > 1)
  for (int64_t i = 0; i < stack; i++) {
    const T* own = static_cast<const T*>(angles) + i * angle_count;
    T* made = static_cast<T*>(y) + i * numbers * columns;
    if (grad)
      turn_back(turnings, count, transposed, own, columns, made, static_cast<T*>(grad) + i * numbers * columns,
                static_cast<T*>(angle_grads) + i * angle_count);
    else
      turn_all(turnings, count, transposed, own, numbers, columns, made);
  }
}

}  // namespace

extern "C" {

int quanta_abi() { return 1; }

// y [tokens, out_features] = the circuit applied to x [tokens, in_features]; returns 1 where memory does not suffice.
// `matrices` has one pointer for every gate, null where it has no matrix.
int quanta_forward(const Circuit* circuit, int kind, const void* x, int64_t tokens, const void* const* matrices, void* y,
                   int threads) {
  try {
    if (kind == FLOAT) forward<float, float>(*circuit, x, tokens, matrices, y, threads);
    if (kind == BFLOAT16) forward<float, Bfloat16>(*circuit, x, tokens, matrices, y, threads);
    if (kind == DOUBLE) forward<double, double>(*circuit, x, tokens, matrices, y, threads);
  } catch (const std::bad_alloc&) {
    return 1;
  }
  return 0;
}

// dx and the gradients from dy, each null where it is not wanted; x is read only where a gradient is wanted.
int quanta_backward(const Circuit* circuit, int kind, const void* x, const void* dy, int64_t tokens,
                    const void* const* matrices, void* dx, void* const* gradients, int threads) {
  try {
    if (kind == FLOAT) backward<float, float>(*circuit, x, dy, tokens, matrices, dx, gradients, threads);
    if (kind == BFLOAT16) backward<float, Bfloat16>(*circuit, x, dy, tokens, matrices, dx, gradients, threads);
    if (kind == DOUBLE) backward<double, double>(*circuit, x, dy, tokens, matrices, dx, gradients, threads);
  } catch (const std::bad_alloc&) {
    return 1;
  }
  return 0;
}

// y [stack, numbers, columns] = the first columns of orthogonal matrices, or of their transposes, from [stack, angles].
// With `grad`, that of y, which is given then, the gradients of the angles are added to `angle_grads`.
void quanta_turnings(const Turning* program, int count, int transposed, int kind, const void* angles, int64_t stack,
                     int64_t angle_count, int64_t numbers, int64_t columns, void* y, void* grad, void* angle_grads,
                     int threads) {
  const auto run = kind == DOUBLE ? turnings<double> : turnings<float>;
  run(program, count, transposed, angles, stack, angle_count, numbers, columns, y, grad, angle_grads, threads);
}

}  // extern "C"
