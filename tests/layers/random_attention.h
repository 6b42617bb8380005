// random_attention.h: every form of attention, drawn for the soundness tests.
#pragma once
#include <numeric>

#include "layers/attention.h"
#include "soundness.h"

namespace soundness {

inline AttentionPart attention_part(Draw& d) {
  AttentionPart part;
  part.tau = d.magnitude(0.3, 30), part.nu = d.magnitude(0.3, 3), part.eps = d.magnitude(1e-4, 1);
  part.scale = d.magnitude(0.1, 10);
  part.temperature = d.chance(0.3) ? d.magnitude(0.2, 5) : 1;
  part.qk_norm = d.one_of({NormKind::none, NormKind::none, NormKind::layer, NormKind::rms});
  part.qk_norm_eps = d.magnitude(1e-4, 1);
  part.separate = d.chance(0.5);
  part.groups = d.one_of({AttentionPart::whole, AttentionPart::matrices, AttentionPart::heads});
  return part;
}

struct RandomPlace {
  AttentionPlace place;
  int64_t height, columns, width;   // of the map
};

// CSwin's: half of the heads in stripes the other way, and LePE.
inline RandomPlace striped_place(Draw& d) {
  const int heads = d.one_of({2, 2, 4});
  RandomPlace r{{.heads = heads, .window_height = int(d.between(1, 4)), .window_width = int(d.one_of({1, 2, 4})), .qkv_bias = d.chance(0.6),
                 .cross_shaped = true, .lepe = true}};
  r.width = heads * d.between(1, 3);
  r.height = r.columns = std::lcm(r.place.window_height, r.place.window_width);
  return r;
}

// Sequences, with rotary positions or without; windows, shifted or not; stripes of two directions; with LePE or position biases.
inline RandomPlace attention_place(Draw& d) {
  const int heads = d.one_of({1, 1, 2, 2, 3, 4}), head_width = d.chance(0.05) ? 16 : int(d.between(1, 4));
  RandomPlace r{{.heads = heads, .qkv_bias = d.chance(0.6)}, 1, 1, heads * head_width};
  AttentionPlace& p = r.place;
  const int form = int(d.between(0, 3));
  if (form == 0) {
    p.window_height = 1, p.window_width = int(d.chance(0.05) ? 64 : d.between(1, 8));
    p.causal = d.chance(0.4);
    if (head_width % 2 == 0 && d.chance(0.5)) p.rotary_base = 100, p.rotary_still = int(d.between(0, head_width / 2));
  } else if (form == 1) {
    p.window_height = int(d.between(1, 3)), p.window_width = int(d.between(1, 3));
  } else if (form == 2) {
    p.window_height = p.window_width = int(d.between(2, 3));
    p.shift = int(d.between(0, p.window_width - 1));
  } else if (heads % 2 == 0) {
    p.window_height = int(d.between(1, 4)), p.window_width = int(d.one_of({1, 2, 4}));
    p.cross_shaped = true;
  } else {
    p.window_height = int(d.between(1, 4)), p.window_width = int(d.between(1, 4));
  }
  // Stripes of both directions must tile the map.
  r.height = p.cross_shaped ? std::lcm(p.window_height, p.window_width) : p.window_height * (form == 0 ? 1 : d.between(1, 2));
  r.columns = p.cross_shaped ? r.height : p.window_width * (form == 0 ? 1 : d.between(1, 2));
  p.lepe = p.cross_shaped ? d.chance(0.7) : form != 0 && p.shift == 0 && d.chance(0.3);
  p.position_bias = !p.cross_shaped && d.chance(0.5);
  if (d.chance(0.3)) p.output_factor = d.real(0.2, 1);
  return r;
}

}  // namespace soundness
