variable "project" {
  description = "ID of the Google Cloud project."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "A project ID has 6 to 30 lowercase letters, digits and hyphens, and begins with a letter."
  }
}

variable "region" {
  description = "Region of all resources, jobs and data."
  type        = string
  default     = "europe-west1"

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]$", var.region))
    error_message = "Give a region such as europe-west1."
  }
}

variable "name" {
  description = "Prefix of all resource names. Two deployments in one project need different names."
  type        = string
  default     = "scenebeam"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,18}[a-z0-9]$", var.name))
    error_message = "A name has 3 to 20 lowercase letters, digits and hyphens, and begins with a letter."
  }
}

variable "worker_image" {
  description = "Image of the workers and the launcher (docker/worker.Dockerfile), with a tag or digest."
  type        = string

  validation {
    condition     = can(regex("(:[^:/]+|@sha256:[0-9a-f]{64})$", var.worker_image)) && !endswith(var.worker_image, ":latest")
    error_message = "Give a tag or digest other than :latest, so that runs use the image that was tested."
  }
}

variable "functions_image" {
  description = "Image of the functions (docker/functions.Dockerfile), with a tag or digest."
  type        = string

  validation {
    condition     = can(regex("(:[^:/]+|@sha256:[0-9a-f]{64})$", var.functions_image)) && !endswith(var.functions_image, ":latest")
    error_message = "Give a tag or digest other than :latest."
  }
}

variable "catalogs" {
  description = "Catalogs that requests may use: known names, or URLs, each of which allows everything below it."
  type        = list(string)
  default     = ["earth-search", "planetary-computer", "cdse"]

  validation {
    condition     = length(var.catalogs) > 0
    error_message = "List at least one catalog: without one, no request can run."
  }
}

variable "inputs" {
  description = "Prefixes below which boundaries, areas of interest, chip catalogs and crop calendars of requests may be, in addition to the deployment's own buckets. https:// allows any public host; buckets must be listed."
  type        = list(string)
  default     = ["https://"]
}

variable "max_scenes" {
  description = "Maximum number of scenes that a request may find. Caps limits.max_scenes of the request."
  type        = number
  default     = 10000

  validation {
    condition     = var.max_scenes >= 1
    error_message = "max_scenes must be 1 or more."
  }
}

variable "max_bytes" {
  description = "Maximum number of bytes that a request may read, such as 500GB or 1TB. Caps limits.max_bytes of the request."
  type        = string
  default     = "1TB"

  validation {
    condition     = can(regex("^[0-9]+(MB|GB|TB)$", var.max_bytes))
    error_message = "Give a whole number of MB, GB or TB, such as 500GB or 1TB."
  }
}

variable "max_workers" {
  description = "Maximum number of Dataflow workers per run."
  type        = number
  default     = 20

  validation {
    condition     = var.max_workers >= 1 && var.max_workers <= 1000
    error_message = "max_workers must be from 1 to 1000."
  }
}

variable "machine_type" {
  description = "Machine type of the Dataflow workers."
  type        = string
  default     = "n2-standard-2"

  validation {
    condition     = can(regex("^[a-z0-9]+-(standard|highmem|highcpu)-[0-9]+$", var.machine_type))
    error_message = "Give a predefined machine type such as n2-standard-2: its memory determines the number of tasks per worker."
  }
}

variable "subnetwork" {
  description = "Subnetwork of the workers, as regions/<region>/subnetworks/<name>. It needs Private Google Access and, for catalogs outside Google, Cloud NAT. The default, null, is the default network of the project."
  type        = string
  default     = null
}

variable "retention_days" {
  description = "Number of days after which objects in the state bucket are deleted: `temporary` for temporary files of workers, `state` for requests and statuses of runs and for rejected messages."
  type = object({
    temporary = optional(number, 7)
    state     = optional(number, 365)
  })
  default = {}

  validation {
    condition     = var.retention_days.temporary >= 1 && var.retention_days.state >= 1
    error_message = "Both retention periods must be 1 day or more."
  }
}

variable "viewers" {
  description = "Members who may open the status pages, such as group:team@example.com. By default, nobody may. Public access is not possible."
  type        = list(string)
  default     = []

  validation {
    condition     = !contains(var.viewers, "allUsers") && !contains(var.viewers, "allAuthenticatedUsers")
    error_message = "The status pages cannot be public: list members."
  }
}

variable "alert_emails" {
  description = "Email addresses that are notified when a run fails."
  type        = list(string)
  default     = []
}

variable "series" {
  description = "Series: `schedule` of the sweep that launches passes; `wait_minutes` in which more items of an acquisition may arrive; `check_hours` after which catalogs are asked for scenes that nobody announced; `max_runs` at a time; `max_monthly_cost` in USD by the estimates of the plans (null: no budget); `stale_days` without a new product that raise an alert."
  type = object({
    schedule         = optional(string, "*/10 * * * *")
    wait_minutes     = optional(number, 10)
    check_hours      = optional(number, 6)
    max_runs         = optional(number, 10)
    max_monthly_cost = optional(number)
    stale_days       = optional(number, 30)
  })
  default = {}

  validation {
    condition     = var.series.max_runs >= 1 && var.series.wait_minutes >= 0 && var.series.check_hours >= 1 && var.series.stale_days >= 1
    error_message = "max_runs, check_hours and stale_days must be 1 or more, and wait_minutes 0 or more."
  }
  validation {
    condition     = var.series.max_monthly_cost == null ? true : var.series.max_monthly_cost >= 0
    error_message = "max_monthly_cost must be 0 or more."
  }
}

variable "secrets" {
  description = "Accounts of catalogs: name of a credential (EARTHDATA_TOKEN, CDSE_USERNAME, CDSE_PASSWORD, CDSE_S3_ACCESS_KEY, CDSE_S3_SECRET_KEY) to the id of the secret in Secret Manager that holds it."
  type        = map(string)
  default     = {}
}
