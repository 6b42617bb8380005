# Writes OUTPUT, a C++ file that holds the files RECIPES: cmake -DRECIPES=a.toml;b.toml -DOUTPUT=... -P embed_presets.cmake
set(code "#include \"train/presets.h\"\n\nconst std::vector<Preset>& presets() {\n  static const std::vector<Preset> all{\n")
foreach(recipe ${RECIPES})
  get_filename_component(name ${recipe} NAME_WLE)
  file(READ ${recipe} text)
  string(APPEND code "{\"${name}\", R\"recipe(${text})recipe\"},\n")
endforeach()
string(APPEND code "  };\n  return all;\n}\n")
file(WRITE ${OUTPUT} "${code}")
