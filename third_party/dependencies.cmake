# Every library lipsgrad stands on, from the system's packages (scripts/setup.sh installs them). third_party/README.md says what each is for.
find_package(Threads REQUIRED)
find_package(OpenMP REQUIRED)
# libdnnl-dev: found by hand, because Debian's package file also asks for OpenCL, which the CPU engine never uses.
find_path(DNNL_INCLUDE dnnl.h REQUIRED)
find_library(DNNL_LIBRARY dnnl REQUIRED)
add_library(dnnl::dnnl INTERFACE IMPORTED)
target_include_directories(dnnl::dnnl INTERFACE ${DNNL_INCLUDE})
target_link_libraries(dnnl::dnnl INTERFACE ${DNNL_LIBRARY})
set(MPI_CXX_SKIP_MPICXX ON)             # its C++ classes are long gone; the C functions are used
find_package(MPI COMPONENTS CXX)        # libopenmpi-dev; optional: without it ranks speak over TCP
find_package(JPEG REQUIRED)             # libjpeg62-turbo-dev
find_package(ZLIB REQUIRED)             # zlib1g-dev
find_package(fmt REQUIRED)              # libfmt-dev
find_package(CLI11 REQUIRED)            # libcli11-dev
find_package(nlohmann_json REQUIRED)    # nlohmann-json3-dev
find_package(tomlplusplus REQUIRED)     # libtomlplusplus-dev
find_package(doctest REQUIRED)          # doctest-dev
find_package(benchmark REQUIRED)        # libbenchmark-dev
find_path(STB_INCLUDE stb/stb_image.h REQUIRED)   # libstb-dev
find_library(STB_LIBRARY stb REQUIRED)
add_library(stb::stb INTERFACE IMPORTED)
target_include_directories(stb::stb INTERFACE ${STB_INCLUDE})
target_link_libraries(stb::stb INTERFACE ${STB_LIBRARY})
find_path(CAIRO_INCLUDE cairo/cairo.h REQUIRED)   # libcairo2-dev
find_library(CAIRO_LIBRARY cairo REQUIRED)
add_library(cairo::cairo INTERFACE IMPORTED)
target_include_directories(cairo::cairo INTERFACE ${CAIRO_INCLUDE})
target_link_libraries(cairo::cairo INTERFACE ${CAIRO_LIBRARY})
# libjs-dygraphs: the charts of the report, built into the binary.
find_file(DYGRAPHS_JS dygraph.min.js PATHS /usr/share/javascript/dygraphs REQUIRED)
find_file(DYGRAPHS_CSS dygraph.min.css PATHS /usr/share/javascript/dygraphs REQUIRED)
