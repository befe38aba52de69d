module example/discovery

go 1.21

require github.com/prometheus/prometheus v0.48.1
