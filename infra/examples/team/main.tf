# The deployment of one team: Earth Search and the team's own catalog, lower limits, email alerts for
# failed runs, and a subnetwork whose workers, without public addresses, reach catalogs through
# Cloud NAT.
module "scenebeam" {
  source = "../.."

  project         = "my-project"
  region          = "europe-west1"
  name            = "team-forest"
  worker_image    = "europe-west1-docker.pkg.dev/my-project/scenebeam/worker:1.0.0"
  functions_image = "europe-west1-docker.pkg.dev/my-project/scenebeam/functions:1.0.0"

  catalogs     = ["earth-search", "https://stac.example.com/api"]
  max_scenes   = 2000
  max_bytes    = "500GB"
  max_workers  = 10
  machine_type = "n2-highmem-2"
  subnetwork   = "regions/europe-west1/subnetworks/${google_compute_subnetwork.workers.name}"

  viewers        = ["group:forest@example.com"]
  alert_emails   = ["forest@example.com"]
  retention_days = { temporary = 2 }
}

resource "google_compute_network" "workers" {
  name                    = "team-forest"
  auto_create_subnetworks = false
}

resource "google_compute_subnetwork" "workers" {
  #checkov:skip=CKV_GCP_26:flow logs cost money, and nobody needs them for workers that fetch public imagery
  #checkov:skip=CKV_GCP_76:the subnetwork uses IPv4 only
  name                     = "team-forest"
  region                   = "europe-west1"
  network                  = google_compute_network.workers.id
  ip_cidr_range            = "10.10.0.0/24"
  private_ip_google_access = true
}

# Dataflow workers accept connections from each other only.
resource "google_compute_firewall" "workers" {
  name        = "team-forest-dataflow"
  network     = google_compute_network.workers.id
  source_tags = ["dataflow"]
  target_tags = ["dataflow"]

  allow {
    protocol = "tcp"
    ports    = ["12345-12346"]
  }
}

resource "google_compute_router" "workers" {
  name    = "team-forest"
  region  = "europe-west1"
  network = google_compute_network.workers.id
}

resource "google_compute_router_nat" "workers" {
  name                               = "team-forest"
  router                             = google_compute_router.workers.name
  region                             = "europe-west1"
  nat_ip_allocate_option             = "AUTO_ONLY"
  source_subnetwork_ip_ranges_to_nat = "ALL_SUBNETWORKS_ALL_IP_RANGES"
}

output "request_topic" {
  description = "Topic to which requests are published."
  value       = module.scenebeam.request_topic
}

output "status_url" {
  description = "URL of the list of runs."
  value       = module.scenebeam.status_url
}
