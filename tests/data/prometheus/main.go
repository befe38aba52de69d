// Prints what Prometheus's own discovery finds for the jobs of a configuration, at each change.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"sort"

	kitlog "github.com/go-kit/log"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	_ "github.com/prometheus/prometheus/discovery/consul"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
)

func main() {
	loaded, err := config.LoadFile(os.Args[1], false, false, kitlog.NewNopLogger())
	if err != nil {
		log.Fatal(err)
	}
	manager := discovery.NewManager(context.Background(), kitlog.NewLogfmtLogger(os.Stderr))
	jobs := map[string]discovery.Configs{}
	for _, job := range loaded.ScrapeConfigs {
		jobs[job.JobName] = job.ServiceDiscoveryConfigs
	}
	if err := manager.ApplyConfig(jobs); err != nil {
		log.Fatal(err)
	}
	go manager.Run()
	for found := range manager.SyncCh() {
		lines := []string{}
		for _, groups := range found {
			for _, group := range groups {
				for _, target := range group.Targets {
					builder := labels.NewBuilder(labels.EmptyLabels())
					for name, value := range group.Labels.Merge(target) {
						builder.Set(string(name), string(value))
					}
					relabel.ProcessBuilder(builder, loaded.ScrapeConfigs[0].RelabelConfigs...)
					result := builder.Labels()
					lines = append(lines, fmt.Sprint(result.Get("__address__"), " ", result.Get("service"), " ", result.Get("zone")))
				}
			}
		}
		sort.Strings(lines)
		fmt.Println(lines)
	}
}
