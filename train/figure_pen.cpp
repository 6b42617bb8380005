// figure_pen.cpp: cairo, and its three kinds of surfaces.
#include "train/figure_pen.h"

#include <cairo/cairo-pdf.h>
#include <cairo/cairo-svg.h>
#include <cairo/cairo.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "engine/check.h"
#include "engine/durable_file.h"

namespace fs = std::filesystem;

namespace {

constexpr double png_dots = 300.0 / 72;   // a point

using Surface = std::unique_ptr<cairo_surface_t, decltype(&cairo_surface_destroy)>;
using Context = std::unique_ptr<cairo_t, decltype(&cairo_destroy)>;

cairo_status_t append(void* text, const unsigned char* data, unsigned int length) {
  static_cast<std::string*>(text)->append(reinterpret_cast<const char*>(data), length);
  return CAIRO_STATUS_SUCCESS;
}

void check_status(cairo_status_t status, const fs::path& file) {
  if (status != CAIRO_STATUS_SUCCESS) fail(Exit::failure, "cannot draw ", file.string(), ": ", cairo_status_to_string(status));
}

void draw_on(cairo_surface_t* surface, double scale, const std::function<void(Pen&)>& draw, const fs::path& file) {
  const Context context(cairo_create(surface), cairo_destroy);
  cairo_t* cairo = context.get();
  cairo_scale(cairo, scale, scale);
  cairo_set_source_rgb(cairo, 1, 1, 1);
  cairo_paint(cairo);
  cairo_select_font_face(cairo, "DejaVu Sans", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
  cairo_set_line_join(cairo, CAIRO_LINE_JOIN_ROUND);
  Pen pen(cairo);
  draw(pen);
  check_status(cairo_status(cairo), file);
}

}  // namespace

void Pen::use(Colour colour) { cairo_set_source_rgb(cairo_, colour.red, colour.green, colour.blue); }

void Pen::line(const std::vector<Spot>& spots, Colour colour, double width, const std::vector<double>& dash) {
  if (spots.empty()) return;
  use(colour);
  cairo_set_line_width(cairo_, width);
  cairo_set_dash(cairo_, dash.data(), int(dash.size()), 0);
  for (const Spot& spot : spots) cairo_line_to(cairo_, spot.x, spot.y);
  cairo_stroke(cairo_);
}

void Pen::area(const std::vector<Spot>& corners, Colour colour) {
  use(colour);
  for (const Spot& corner : corners) cairo_line_to(cairo_, corner.x, corner.y);
  cairo_close_path(cairo_);
  cairo_fill(cairo_);
}

void Pen::dot(Spot at, double radius, Colour colour) {
  use(colour);
  cairo_arc(cairo_, at.x, at.y, radius, 0, 2 * M_PI);
  cairo_fill(cairo_);
}

double Pen::width_of(const std::string& words, double size) {
  cairo_text_extents_t extents;
  cairo_set_font_size(cairo_, size);
  cairo_text_extents(cairo_, words.c_str(), &extents);
  return extents.x_advance;
}

void Pen::text(Spot at, const std::string& words, Align align, double size) {
  const double width = width_of(words, size), before = align == Align::left ? 0 : align == Align::middle ? width / 2 : width;
  use({});
  cairo_move_to(cairo_, at.x - before, at.y + 0.36 * size);
  cairo_show_text(cairo_, words.c_str());
  cairo_new_path(cairo_);
}

void Pen::upward_text(Spot at, const std::string& words) {
  cairo_save(cairo_);
  cairo_translate(cairo_, at.x, at.y);
  cairo_rotate(cairo_, -M_PI / 2);
  text({0, 0}, words, Align::middle);
  cairo_restore(cairo_);
}

void Pen::cells(const Box& box, int rows, int columns, const std::vector<Colour>& colours) {
  check(rows > 0 && columns > 0 && colours.size() == std::size_t(rows) * columns, "[figure] needs a colour for each of ", rows, " x ", columns, " cells");
  const Surface image(cairo_image_surface_create(CAIRO_FORMAT_RGB24, columns, rows), cairo_surface_destroy);
  const int stride = cairo_image_surface_get_stride(image.get());
  unsigned char* data = cairo_image_surface_get_data(image.get());
  const auto byte = [](double part) { return std::uint32_t(std::lround(255 * std::clamp(part, 0.0, 1.0))); };
  for (int r = 0; r < rows; r++) {
    auto* line = reinterpret_cast<std::uint32_t*>(data + std::ptrdiff_t(r) * stride);
    for (int c = 0; c < columns; c++) {
      const Colour& colour = colours[std::size_t(r) * columns + c];
      line[c] = byte(colour.red) << 16 | byte(colour.green) << 8 | byte(colour.blue);
    }
  }
  cairo_surface_mark_dirty(image.get());
  cairo_save(cairo_);
  cairo_translate(cairo_, box.left, box.top);
  cairo_scale(cairo_, box.width() / columns, box.height() / rows);
  cairo_set_source_surface(cairo_, image.get(), 0, 0);
  cairo_pattern_set_filter(cairo_get_source(cairo_), CAIRO_FILTER_NEAREST);
  cairo_rectangle(cairo_, 0, 0, columns, rows);
  cairo_fill(cairo_);
  cairo_restore(cairo_);
}

void Pen::inside(const Box& box, const std::function<void()>& draw) {
  cairo_save(cairo_);
  cairo_rectangle(cairo_, box.left, box.top, box.width(), box.height());
  cairo_clip(cairo_);
  draw();
  cairo_restore(cairo_);
}

void write_figure(const fs::path& folder, const std::string& name, double width, double height, const std::function<void(Pen&)>& draw) {
  const auto write = [&](const char* ending, double scale, auto&& make, auto&& finish) {
    const fs::path file = folder / (name + ending);
    std::string bytes;
    const Surface surface(make(&bytes), cairo_surface_destroy);
    draw_on(surface.get(), scale, draw, file);
    check_status(finish(surface.get(), &bytes), file);
    write_file_atomically(file.string(), bytes);
  };
  const auto close = [](cairo_surface_t* surface, std::string*) {
    cairo_surface_finish(surface);
    return cairo_surface_status(surface);
  };
  write(".svg", 1, [&](std::string* bytes) { return cairo_svg_surface_create_for_stream(append, bytes, width, height); }, close);
  write(".pdf", 1, [&](std::string* bytes) { return cairo_pdf_surface_create_for_stream(append, bytes, width, height); }, close);
  const auto image = [&](std::string*) {
    return cairo_image_surface_create(CAIRO_FORMAT_RGB24, int(std::lround(width * png_dots)), int(std::lround(height * png_dots)));
  };
  write(".png", png_dots, image, [](cairo_surface_t* surface, std::string* bytes) { return cairo_surface_write_to_png_stream(surface, append, bytes); });
}
