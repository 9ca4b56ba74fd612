"""What a run will take of time, memory and disk, measured on a few pictures before anything long starts."""
