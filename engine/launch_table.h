// launch_table.h: what one launch does for each of many matrices, carried in its arguments: no table on the device, nothing to upload or to keep.
#pragma once
#include <vector>

#include "engine/host_device.h"

// Each job has a run of the launch's units (blocks, or rows of map_rows): those from its `first` on.
template <class Job> struct LaunchTable {
  static constexpr int most = 3840 / int(sizeof(Job));   // a launch has 4 KB for its arguments, the functor's others among them
  int jobs = 0, units = 0;
  Job job[most] = {};

  HD Job of(int unit) const {   // the last job that begins there or before
    int low = 0;
    for (int high = jobs; high - low > 1;) {
      const int middle = (low + high) / 2;
      (job[middle].first <= unit ? low : high) = middle;
    }
    return job[low];
  }
};

// f(table) until all jobs are done, with as few tables as hold them. units(job): how many it has.
template <class Job, class Units, class F> void for_tables(const std::vector<Job>& jobs, const Units& units, const F& f) {
  const size_t most = LaunchTable<Job>::most, tables = (jobs.size() + most - 1) / most;
  for (size_t t = 0; t < tables; t++) {
    LaunchTable<Job> table;
    for (size_t i = jobs.size() * t / tables; i < jobs.size() * (t + 1) / tables; i++) {
      Job& job = table.job[table.jobs++];
      job = jobs[i];
      job.first = table.units;
      table.units += int(units(job));
    }
    f(table);
  }
}
