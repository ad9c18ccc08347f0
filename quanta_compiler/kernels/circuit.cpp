// Applies a gate table (lowering/table.py) to a batch of vectors, tile by tile, forward and backward.
//
// A tile is LINE tokens. Its state is an array of lines, one for every number of the state: a line holds that number
// of all tokens of the tile and is one cache line long. A gate is then a small matrix times lines, and it does not
// matter where a line lies: the table says where each is written so that the next gate reads its columns one after
// the other. The state never leaves the core's second-level cache, and nothing is permuted.
//
// Products are blocked in registers, ROWS rows of the matrix by LINES lines, with the matrix packed to match.
// Sums are in float for float and bfloat16 vectors, in double for double ones.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#ifdef _OPENMP
#include <omp.h>
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
inline float widen(Bfloat16 value) {
  std::uint32_t bits = std::uint32_t(value.bits) << 16;
  float wide;
  std::memcpy(&wide, &bits, 4);
  return wide;
}
inline float widen(float value) { return value; }
inline double widen(double value) { return value; }
inline void narrow(float value, float& to) { to = value; }
inline void narrow(double value, double& to) { to = value; }
inline void narrow(float value, Bfloat16& to) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, 4);
  // To nearest, ties to even; a NaN stays one.
  std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  to.bits = (bits & 0x7fffffffu) > 0x7f800000u ? std::uint16_t((bits >> 16) | 0x40u) : std::uint16_t(rounded);
}

// ---- squares of WIDTH x WIDTH numbers, turned over in registers ----

#if defined(__clang__) || __GNUC__ >= 12
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

template <class T, class E>
inline typename Lanes<T>::Vector load_wide(const E* from) {
  if constexpr (std::is_same<T, E>::value) {
    return load_loose(from);
  } else {
    typename Lanes<T>::Vector wide;
    for (int l = 0; l < Lanes<T>::WIDTH; l++) wide[l] = widen(from[l]);
    return wide;
  }
}
template <class T, class E>
inline void store_narrow(E* to, typename Lanes<T>::Vector value) {
  if constexpr (std::is_same<T, E>::value) {
    store_loose(to, value);
  } else {
    for (int l = 0; l < Lanes<T>::WIDTH; l++) narrow(value[l], to[l]);
  }
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

// lines[places[f]] -> y [tokens, features]; features past those of the state are zeros.
template <class T, class E>
void leave(const T* lines, const int32_t* places, int size, E* y, int64_t width, int features, int tokens) {
  constexpr int LINE = Lanes<T>::LINE, WIDTH = Lanes<T>::WIDTH;
  auto line_of = [&](int f) { return lines + int64_t(places ? places[f] : f) * LINE; };
  int f = 0;
  if (tokens == LINE)
    for (; f + WIDTH <= features && f + WIDTH <= size; f += WIDTH)
      for (int p = 0; p < PARTS; p++) {
        typename Lanes<T>::Vector rows[WIDTH];
#pragma GCC unroll 16
        for (int i = 0; i < WIDTH; i++) rows[i] = load(line_of(f + i) + p * WIDTH);
        turn<T>(rows);
#pragma GCC unroll 16
        for (int t = 0; t < WIDTH; t++) store_narrow<T>(y + (p * WIDTH + t) * width + f, rows[t]);
      }
  for (; f < features; f++)
    for (int t = 0; t < tokens; t++) narrow(f < size ? line_of(f)[t] : T(0), y[t * width + f]);
}

// ---- gradients of matrices ----

constexpr int DEPTH = 8;  // lines turned over at a time: their panel stays in the first-level cache

template <class T>
int64_t padded(int columns) {
  constexpr int WIDTH = Lanes<T>::WIDTH;
  return (columns + WIDTH - 1) / WIDTH * WIDTH;
}

// sums [blocks, rows, padded columns] += the product of dy [blocks, rest, rows] and x [blocks, rest, columns] over rest
// and tokens.
template <class T>
void accumulate_gradient(const Gate& gate, const T* dy, const T* x, T* sums, T* turned) {
  constexpr int LINE = Lanes<T>::LINE, WIDTH = Lanes<T>::WIDTH;
  const int rows = gate.rows, columns = gate.columns, rest = gate.rest;
  const int64_t wide = padded<T>(columns);
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

// ---- memory ----

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<char, Free>;

Memory reserve(int64_t bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 4096, bytes > 0 ? bytes : 64) != 0) throw std::bad_alloc();
  return Memory(static_cast<char*>(memory));
}

template <class T>
int64_t largest_state(const Circuit& circuit) {
  int64_t largest = circuit.in_size > circuit.out_size ? circuit.in_size : circuit.out_size;
  for (int g = 0; g < circuit.gates; g++) {
    if (lines_read(circuit.gate[g]) > largest) largest = lines_read(circuit.gate[g]);
    if (lines_made(circuit.gate[g]) > largest) largest = lines_made(circuit.gate[g]);
  }
  return largest * Lanes<T>::LINE;
}

template <class T>
Memory pack_all(const Circuit& circuit, const T* const* matrices, bool transposed, int first) {
  int64_t numbers = 0;
  for (int g = first; g < circuit.gates; g++) numbers += matrix_numbers(circuit.gate[g]);
  Memory memory = reserve(numbers * sizeof(T));
  T* packed = reinterpret_cast<T*>(memory.get());
  for (int g = first; g < circuit.gates; g++) {
    if (circuit.gate[g].has_matrix) pack(circuit.gate[g], matrices[g], packed, transposed);
    packed += matrix_numbers(circuit.gate[g]);
  }
  return memory;
}

template <class T>
void step(const Gate& gate, const T* packed, const T* x, T* y) {
  if (gate.has_matrix)
    apply(packed, x, y, gate.blocks, gate.rest, gate.rows, gate.columns, gate.write_rest, gate.write_row);
  else
    move(gate, x, y, false);
}

template <class T, class E>
void forward(const Circuit& circuit, const E* x, int64_t tokens, const T* const* matrices, E* y, int threads) {
  constexpr int LINE = Lanes<T>::LINE;
  const int64_t tiles = (tokens + LINE - 1) / LINE, state = largest_state<T>(circuit);
  const Memory packs = pack_all(circuit, matrices, false, 0);
  if (threads > tiles) threads = int(tiles);
#pragma omp parallel num_threads(threads)
  {
    const Memory memory = reserve(2 * state * sizeof(T));
    T* const lines = reinterpret_cast<T*>(memory.get());
#pragma omp for schedule(dynamic)
    for (int64_t tile = 0; tile < tiles; tile++) {
      const int count = tokens - tile * LINE < LINE ? int(tokens - tile * LINE) : LINE;
      T *now = lines, *next = lines + state;
      enter(x + tile * LINE * circuit.in_features, circuit.in_features, circuit.in_features, circuit.in_size, count,
            circuit.read, now);
      const T* packed = reinterpret_cast<const T*>(packs.get());
      for (int g = 0; g < circuit.gates; g++) {
        step(circuit.gate[g], packed, now, next);
        packed += matrix_numbers(circuit.gate[g]);
        std::swap(now, next);
      }
      leave(now, nullptr, circuit.out_size, y + tile * LINE * circuit.out_features, circuit.out_features,
            circuit.out_features, count);
    }
  }
}

template <class T, class E>
void backward(const Circuit& circuit, const E* x, const E* dy, int64_t tokens, const T* const* matrices, E* dx,
              T* const* gradients, int threads) {
  constexpr int LINE = Lanes<T>::LINE, WIDTH = Lanes<T>::WIDTH;
  const int64_t tiles = (tokens + LINE - 1) / LINE, state = largest_state<T>(circuit);
  const int gates = circuit.gates;
  const Memory packs = pack_all(circuit, matrices, false, 0), turned_packs = pack_all(circuit, matrices, true, 0);
  if (threads > tiles) threads = int(tiles);
  int64_t states = 0, sums_size = 0;
  for (int g = 0; g < gates; g++) {
    states += lines_read(circuit.gate[g]) * LINE;
    if (gradients[g]) sums_size += circuit.gate[g].blocks * circuit.gate[g].rows * padded<T>(circuit.gate[g].columns);
  }
  for (int g = 0; g < gates; g++)
    if (gradients[g]) std::memset(gradients[g], 0, matrix_numbers(circuit.gate[g]) * sizeof(T));
#pragma omp parallel num_threads(threads)
  {
    const Memory memory = reserve((states + 2 * state + sums_size + DEPTH * LINE * PANEL * WIDTH) * sizeof(T));
    T* const lines = reinterpret_cast<T*>(memory.get());
    T* const flow = lines + states;
    T* const panel = flow + 2 * state;
    T* const sums = panel + DEPTH * LINE * PANEL * WIDTH;
    std::memset(sums, 0, sums_size * sizeof(T));
#pragma omp for schedule(dynamic)
    for (int64_t tile = 0; tile < tiles; tile++) {
      const int count = tokens - tile * LINE < LINE ? int(tokens - tile * LINE) : LINE;
      enter(x + tile * LINE * circuit.in_features, circuit.in_features, circuit.in_features, circuit.in_size, count,
            circuit.read, lines);
      const T* packed = reinterpret_cast<const T*>(packs.get());
      T* now = lines;
      for (int g = 0; g + 1 < gates; g++) {
        T* next = now + lines_read(circuit.gate[g]) * LINE;
        step(circuit.gate[g], packed, now, next);
        packed += matrix_numbers(circuit.gate[g]);
        now = next;
      }
      T *grad = flow, *next_grad = flow + state;
      enter(dy + tile * LINE * circuit.out_features, circuit.out_features, circuit.out_features, circuit.out_size,
            count, circuit.read_grad, grad);
      T* sum = sums + sums_size;
      packed = reinterpret_cast<const T*>(turned_packs.get());
      for (int g = 0; g < gates; g++) packed += matrix_numbers(circuit.gate[g]);
      for (int g = gates - 1; g >= 0; g--) {
        const Gate& gate = circuit.gate[g];
        if (gradients[g]) {
          sum -= gate.blocks * gate.rows * padded<T>(gate.columns);
          accumulate_gradient(gate, grad, now, sum, panel);
        }
        packed -= matrix_numbers(gate);
        if (g > 0 || dx) {
          if (gate.has_matrix)
            apply(packed, grad, next_grad, gate.blocks, gate.rest, gate.columns, gate.rows, gate.grad_rest,
                  gate.grad_column);
          else
            move(gate, grad, next_grad, true);
          std::swap(grad, next_grad);
        }
        if (g > 0) now -= lines_read(circuit.gate[g - 1]) * LINE;
      }
      if (dx)
        leave(grad, nullptr, circuit.in_size, dx + tile * LINE * circuit.in_features, circuit.in_features,
              circuit.in_features, count);
    }
#pragma omp critical
    {
      const T* sum = sums;
      for (int g = 0; g < gates; g++) {
        if (!gradients[g]) continue;
        const Gate& gate = circuit.gate[g];
        T* to = gradients[g];
        const int64_t wide = padded<T>(gate.columns);
        for (int64_t row = 0; row < int64_t(gate.blocks) * gate.rows; row++, sum += wide)
          for (int j = 0; j < gate.columns; j++) *to++ += sum[j];
      }
    }
  }
}

}  // namespace

extern "C" {

// Kinds of elements: 0 float, 1 bfloat16 (matrices and gradients float), 2 double.
int quanta_forward(const Circuit* circuit, int kind, const void* x, int64_t tokens, const void* const* matrices, void* y,
                   int threads) {
  if (kind == 0)
    forward<float>(*circuit, (const float*)x, tokens, (const float* const*)matrices, (float*)y, threads);
  else if (kind == 1)
    forward<float>(*circuit, (const Bfloat16*)x, tokens, (const float* const*)matrices, (Bfloat16*)y, threads);
  else
    forward<double>(*circuit, (const double*)x, tokens, (const double* const*)matrices, (double*)y, threads);
  return 0;
}

int quanta_backward(const Circuit* circuit, int kind, const void* x, const void* dy, int64_t tokens,
                    const void* const* matrices, void* dx, void* const* gradients, int threads) {
  if (kind == 0)
    backward<float>(*circuit, (const float*)x, (const float*)dy, tokens, (const float* const*)matrices, (float*)dx,
                    (float* const*)gradients, threads);
  else if (kind == 1)
    backward<float>(*circuit, (const Bfloat16*)x, (const Bfloat16*)dy, tokens, (const float* const*)matrices,
                    (Bfloat16*)dx, (float* const*)gradients, threads);
  else
    backward<double>(*circuit, (const double*)x, (const double*)dy, tokens, (const double* const*)matrices,
                     (double*)dx, (double* const*)gradients, threads);
  return 0;
}

}  // extern "C"
