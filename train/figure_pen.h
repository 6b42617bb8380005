// figure_pen.h: draws a figure once for three files: SVG and PDF with text and lines as such, PNG in 300 dots an inch.
#pragma once
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

typedef struct _cairo cairo_t;

struct Colour {
  double red = 0, green = 0, blue = 0;   // 0 to 1
};

struct Spot {
  double x = 0, y = 0;   // points (1/72 inch) from the upper left corner
};

struct Box {
  double left = 0, top = 0, right = 0, bottom = 0;
  double width() const { return right - left; }
  double height() const { return bottom - top; }
};

// Where a text stands to its spot.
enum class Align { left, middle, right };

class Pen {
 public:
  static constexpr double text_size = 8;   // what a journal's column is lettered in
  explicit Pen(cairo_t* cairo) : cairo_(cairo) {}

  void line(const std::vector<Spot>& spots, Colour colour, double width, const std::vector<double>& dash = {});
  void area(const std::vector<Spot>& corners, Colour colour);
  void dot(Spot at, double radius, Colour colour);
  void text(Spot at, const std::string& words, Align align = Align::left, double size = text_size);   // at.y: the middle of a small letter
  void upward_text(Spot at, const std::string& words);   // centred on its spot, read from below
  double width_of(const std::string& words, double size = text_size);
  // rows x columns of colours, the first row on top; cells keep their edges at every size.
  void cells(const Box& box, int rows, int columns, const std::vector<Colour>& colours);
  // What is drawn meanwhile stays within the box.
  void inside(const Box& box, const std::function<void()>& draw);

 private:
  void use(Colour colour);
  cairo_t* cairo_;
};

// FOLDER/NAME.svg, .pdf and .png, each written whole or not at all.
void write_figure(const std::filesystem::path& folder, const std::string& name, double width, double height, const std::function<void(Pen&)>& draw);
