"""The words that the demo's courses are made of."""

from __future__ import annotations

from typing import Final

from learnflow_core.model import Level

TOPICS: Final = {
    "Development": (
        "Web Development, Python, JavaScript, TypeScript, C++, C#, .NET, Rust, Go, Kotlin, Swift, Java, Ruby, "
        "Node.js, React, Vue, Django, GraphQL, REST APIs, SQL, PostgreSQL, Git, Unit Testing, Algorithms, "
        "Functional Programming"
    ),
    "Data Science": (
        "Statistics, Pandas, Machine Learning, Deep Learning, Data Visualisation, Time Series, Bayesian Inference, "
        "A/B Testing, Natural Language Processing, Recommender Systems, R, Julia, Forecasting, Survey Design"
    ),
    "IT Operations": (
        "Linux, Docker, Kubernetes, Terraform, Networking, DNS, Site Reliability, Observability, Incident "
        "Response, Security+ Topics, Backups, Shell Scripting, Load Testing, Zero-Downtime Releases"
    ),
    "Business": (
        "Project Management, Negotiation, Bookkeeping, Financial Modelling, Product Discovery, Hiring, Pricing, "
        "Supply Chains, Contract Law, Small Business Tax, Public Speaking, Meetings, Remote Work, Strategy"
    ),
    "Marketing": (
        "Copywriting, Search Engine Optimisation, E-Commerce, Newsletters, Brand Design, Market Research, "
        "Podcasting, Community Building, Analytics, Social Video"
    ),
    "Design": (
        "Typography, Colour, Interface Design, User Research, Wireframing, Accessibility, Icon Design, "
        "Illustration, 3D Modelling, Motion Graphics, Design Systems, Bookbinding"
    ),
    "Photography": (
        "Portraits, Street Photography, Macro, Night Skies, Studio Light, Black and White, Film Cameras, Photo "
        "Editing, Wildlife, Food Photography"
    ),
    "Music": (
        "Piano, Guitar, Violin, Ukulele, Drums, Singing, Music Theory, Jazz Harmony, Mixing, Songwriting, Ear "
        "Training, Synthesizers"
    ),
    "Languages": (
        "Français, Español, Português, Deutsch, Italiano, Svenska, Japanese, Mandarin, Arabic, Turkish, Hindi, "
        "English Pronunciation, Latin, Sign Language"
    ),
    "Cooking": (
        "Bread, Pâtisserie, Crème Brûlée, Fermentation, Knife Skills, Curries, Sushi, Vegetarian Cooking, Sauces, "
        "Café Drinks, Barbecue, Cheese"
    ),
    "Health": (
        "Yoga, Running, Sleep, Nutrition, First Aid, Meditation, Mobility, Strength Training, Swimming, Ergonomics"
    ),
    "Mathematics": (
        "Linear Algebra, Calculus, Probability, Number Theory, Geometry, Graph Theory, Logic, Discrete "
        "Mathematics, Differential Equations, Mental Arithmetic"
    ),
    "Writing": (
        "Short Stories, Technical Writing, Screenplays, Poetry, Memoir, Editing, Journalism, Grant Proposals, "
        "Dialogue, Research Papers"
    ),
}
"""The categories, and the topics of each, separated by commas."""

TITLES: Final[tuple[tuple[str, Level], ...]] = (
    ("{} for Beginners", "beginner"),
    ("Advanced {}", "advanced"),
    ("{} from First Principles", "beginner"),
    ("Practical {}", "all"),
    ("{} in Practice", "intermediate"),
    ("The Complete {} Course", "all"),
    ("{} by Example", "all"),
    ("{} at Work", "intermediate"),
    ("A First Week of {}", "beginner"),
    ("Mastering {}", "advanced"),
    ("{}: Thirty Small Projects", "all"),
    ("Understanding {}", "beginner"),
    ("{} Workshop", "intermediate"),
    ("{}, Step by Step", "beginner"),
    ("Thinking in {}", "intermediate"),
    ("{} Under the Hood", "advanced"),
    ("Everyday {}", "all"),
    ("{} Clinic: Common Mistakes", "intermediate"),
)

IN_OTHER_LANGUAGES: Final = (
    ("Cocina española: tapas y más", "Cooking", "es"),
    ("Programación con C++ para principiantes", "Development", "es"),
    ("Fotografía nocturna", "Photography", "es"),
    ("La pâtisserie française, pas à pas", "Cooking", "fr"),
    ("Écrire une nouvelle", "Writing", "fr"),
    ("Einführung in die Buchführung für Gründer", "Business", "de"),
    ("Käse selber machen", "Cooking", "de"),
    ("Álgebra linear na prática", "Mathematics", "pt"),
    ("日本語で学ぶプログラミング入門", "Development", "ja"),
    ("写真の基本と構図", "Photography", "ja"),
    ("Введение в статистику", "Data Science", "ru"),
    ("مقدمة في الخط العربي", "Design", "ar"),
)

FIRST_NAMES: Final = (
    "Amara",
    "Björn",
    "Carla",
    "Dmitri",
    "Elif",
    "Farid",
    "Greta",
    "Hiroshi",
    "Inés",
    "Jamal",
    "Katarzyna",
    "Liam",
    "Mei",
    "Nadia",
    "Oluwaseun",
    "Priya",
    "Quentin",
    "Renée",
    "Søren",
    "Tomás",
    "Uma",
    "Viktor",
    "Wanjiru",
    "Ximena",
    "Yusuf",
    "Zoë",
)
LAST_NAMES: Final = (
    "Adeyemi",
    "Álvarez",
    "Bianchi",
    "Chen",
    "Dąbrowski",
    "Eriksen",
    "Fontaine",
    "García",
    "Haddad",
    "Ito",
    "Jovanović",
    "Kamau",
    "Lindqvist",
    "Müller",
    "Nakamura",
    "O'Brien",
    "Petrov",
    "Quispe",
    "Rossi",
    "Schneider",
    "Tanaka",
    "Umarov",
    "Vargas",
    "Williams",
    "Yamamoto",
    "Zhang",
)
HONORIFICS: Final = ("", "", "", "", "", "", "Dr. ", "Prof. ")

PRICES: Final = (999, 1499, 1999, 2499, 2999, 3499, 3999, 4999, 5999, 6999, 7999, 8999, 9999, 12999, 14999, 19999)
FOREIGN_PRICES: Final = {
    "EUR": (1490, 2990, 4950, 9900),
    "GBP": (1299, 2499, 7999),
    "JPY": (1500, 2980, 12000),
    "INR": (49900, 129900),
    "KWD": (4500, 12750),
}
PROMISES: Final = (
    "You will build something of your own in every section, and have it reviewed.",
    "Short lessons, many exercises, and no assumed knowledge beyond curiosity.",
    "Each section ends with a problem from real work and a discussion of how others solved it.",
    "The emphasis is on habits that last rather than on tricks that date.",
    "Bring a notebook: most of the learning happens away from the screen.",
    "All material can be downloaded, changed and kept.",
)
SECTIONS: Final = (
    "Getting started", "The essentials", "Tools of the trade", "A first project", "Patterns and pitfalls",
    "Working with others", "Going further", "A project from start to end", "Where to go next",
)  # fmt: skip
LESSONS: Final = (
    "What this is about", "A guided tour", "Worked example", "Exercise", "Solutions discussed", "Common mistakes",
    "Checklist", "Interview with a practitioner", "Quiz", "Summary",
)  # fmt: skip
