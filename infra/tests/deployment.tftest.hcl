mock_provider "google" {
  mock_data "google_project" {
    defaults = { number = "123456789012" }
  }
}

variables {
  project         = "my-project"
  worker_image    = "europe-west1-docker.pkg.dev/my-project/scenebeam/worker:1.0.0"
  functions_image = "europe-west1-docker.pkg.dev/my-project/scenebeam/functions:1.0.0"
}

run "defaults" {
  command = plan

  assert {
    condition     = alltrue([for bucket in google_storage_bucket.this : bucket.uniform_bucket_level_access && bucket.public_access_prevention == "enforced"])
    error_message = "A bucket allows public access."
  }
  assert {
    condition     = alltrue([for subscription in google_pubsub_subscription.push : subscription.dead_letter_policy[0].max_delivery_attempts == 20])
    error_message = "A subscription has no dead-letter policy with 20 attempts."
  }
  assert {
    condition     = length(google_cloud_run_v2_service_iam_member.viewers) == 0
    error_message = "Somebody may view runs by default."
  }
  assert {
    condition     = alltrue([for role in google_project_iam_member.this : !contains(["roles/editor", "roles/owner", "roles/storage.admin"], role.role)])
    error_message = "An account has too many permissions."
  }
  assert {
    condition     = google_cloud_run_v2_service.function["launch"].ingress == "INGRESS_TRAFFIC_INTERNAL_ONLY"
    error_message = "launch accepts traffic that is not internal."
  }
  assert {
    condition     = jsondecode(google_storage_bucket_object.template.content).image == var.worker_image
    error_message = "The template does not use worker_image."
  }
}

run "two_deployments_share_nothing" {
  command = plan
  variables {
    name = "second"
  }
  assert {
    condition     = google_storage_bucket.this["state"].name == "my-project-second-state" && google_pubsub_topic.this["requests"].name == "second-requests"
    error_message = "A resource has the name of the default deployment."
  }
}

run "latest_tag_is_rejected" {
  command = plan
  variables {
    worker_image = "europe-west1-docker.pkg.dev/my-project/scenebeam/worker:latest"
  }
  expect_failures = [var.worker_image]
}

run "public_viewers_are_rejected" {
  command = plan
  variables {
    viewers = ["allUsers"]
  }
  expect_failures = [var.viewers]
}

run "variables_are_validated" {
  command = plan
  variables {
    project      = "My Project"
    region       = "europe"
    name         = "a"
    max_bytes    = "much"
    machine_type = "custom-2-4096"
  }
  expect_failures = [var.project, var.region, var.name, var.max_bytes, var.machine_type]
}

run "series_have_a_schedule_bounds_and_secrets" {
  command = plan
  variables {
    series  = { max_runs = 3, max_monthly_cost = 50, schedule = "0 * * * *" }
    secrets = { EARTHDATA_TOKEN = "nasa" }
  }
  assert {
    condition     = google_cloud_scheduler_job.series.schedule == "0 * * * *" && google_cloud_scheduler_job.series.pubsub_target[0].attributes.sweep == "series"
    error_message = "Series are not swept on their schedule."
  }
  assert {
    condition     = local.environment.SCENEBEAM_MAX_RUNS == "3" && local.environment.SCENEBEAM_MAX_MONTHLY_COST == "50"
    error_message = "The bounds of series do not reach the functions."
  }
  assert {
    condition     = endswith(jsondecode(local.environment.SCENEBEAM_ACCOUNTS).EARTHDATA_TOKEN, "/${google_secret_manager_secret_iam_member.worker["EARTHDATA_TOKEN"].secret_id}/versions/latest")
    error_message = "The functions do not get references to secrets."
  }
  assert {
    condition     = google_secret_manager_secret_iam_member.worker["EARTHDATA_TOKEN"].role == "roles/secretmanager.secretAccessor"
    error_message = "Workers may not read the secrets."
  }
  assert {
    condition     = google_pubsub_subscription.push["items"].dead_letter_policy[0].max_delivery_attempts == 20
    error_message = "Items have no dead-letter policy."
  }
}

run "no_budget_by_default" {
  command = plan
  assert {
    condition     = !contains(keys(local.environment), "SCENEBEAM_MAX_MONTHLY_COST")
    error_message = "There is a budget that nobody has set."
  }
}
