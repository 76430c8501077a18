output "request_topic" {
  description = "Publish a request here."
  value       = google_pubsub_topic.this["requests"].id
}

output "request_bucket" {
  description = "Or put a request file in here."
  value       = "gs://${google_storage_bucket.this["requests"].name}"
}

output "products" {
  description = "Below this a request's output may lie."
  value       = "gs://${google_storage_bucket.this["products"].name}"
}

output "status_url" {
  description = "Runs, for those among the viewers: /runs."
  value       = "${google_cloud_run_v2_service.function["status"].uri}/runs"
}

output "registry" {
  description = "Where images are pushed to."
  value       = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.repository_id}"
}

output "environment" {
  description = "What `scenebeam launch` wants to know of the deployment."
  value       = local.environment
}
